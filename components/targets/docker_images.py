"""Images of the Docker target: built on the engine from package registries, or pulled."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_docker as docker

from components.images import CATALOGUE, IMAGES, built_reference, content_hash, upstream_reference
from components.options import child_opts
from components.settings import ImageSource


class DockerImages:
    """Makes each image once. Images stay on the engine after ``destroy``: other stacks may use them."""

    def __init__(
        self,
        *,
        parent: pulumi.Resource,
        provider: docker.Provider,
        mirror: str | None,
        build_args: Mapping[str, str],
    ) -> None:
        self._parent = parent
        self._provider = provider
        self._mirror = mirror
        self._build_args = dict(build_args)
        self._made: dict[str, docker.RemoteImage] = {}

    def image(self, name: str, source: ImageSource, override: str | None) -> pulumi.Output[str]:
        """Id of an image of the catalogue, or of ``override``, on the engine."""
        if override is not None:
            return self._pulled(f"image-{name}-custom", override).image_id
        if source is ImageSource.UPSTREAM or not CATALOGUE[name].buildable:
            return self._pulled(f"image-{name}-upstream", upstream_reference(name, self._mirror)).image_id
        return self._built(name).image_id

    def _pulled(self, resource_name: str, reference: str) -> docker.RemoteImage:
        key = f"{resource_name} {reference}"
        if key not in self._made:
            self._made[key] = docker.RemoteImage(
                resource_name,
                name=reference,
                keep_locally=True,
                opts=child_opts(self._parent, provider=self._provider),
            )
        return self._made[key]

    def _built(self, name: str) -> docker.RemoteImage:
        if name not in self._made:
            bases = {argument: self._built(base) for argument, base in CATALOGUE[name].bases.items()}
            self._made[name] = docker.RemoteImage(
                f"image-{name}",
                name=built_reference(name),
                build=docker.RemoteImageBuildArgs(
                    context=str(IMAGES),
                    dockerfile=f"{name}/Dockerfile",
                    build_args={**self._build_args, **{key: image.name for key, image in bases.items()}},
                    # BuildKit through the engine's own API: buildx would build on the local default engine
                    # whatever host the provider has.
                    version="2",
                    use_legacy_builder=True,
                ),
                triggers={"content": content_hash(name)},
                keep_locally=True,
                opts=child_opts(
                    self._parent,
                    provider=self._provider,
                    depends_on=list(bases.values()),
                ),
            )
        return self._made[name]
