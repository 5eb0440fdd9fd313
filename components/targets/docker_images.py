"""Images of the Docker target: built on the engine from package registries, or pulled."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi

from components.images import CATALOGUE, IMAGES, SHARED, built_reference, pulled_reference
from components.options import child_opts
from components.settings import ImageSource, Registry
from components.targets.docker_resources import Image


class DockerImages:
    """Makes each image once. Images stay on the engine after ``destroy``: other stacks may use them."""

    def __init__(
        self,
        *,
        parent: pulumi.Resource,
        provider: pulumi.ProviderResource,
        registry: Registry | None,
        build_args: Mapping[str, str],
    ) -> None:
        self._parent = parent
        self._provider = provider
        self._registry = registry
        self._build_args = dict(build_args)
        self._made: dict[str, Image] = {}

    def image(self, name: str, source: ImageSource, override: str | None) -> pulumi.Output[str]:
        """Id of an image of the catalogue, or of ``override``, on the engine."""
        mirror = self._registry.mirror if self._registry else None
        upstream = source is ImageSource.UPSTREAM
        reference = pulled_reference(name, upstream=upstream, override=override, mirror=mirror)
        if reference is None:
            return self._built(name).image
        kind = "custom" if reference == override else "upstream"
        return self._pulled(f"image-{name}-{kind}", name, reference).image

    def _pulled(self, resource_name: str, title: str, reference: str) -> Image:
        key = f"{resource_name} {reference}"
        if key not in self._made:
            self._made[key] = Image(
                resource_name,
                title=title,
                reference=reference,
                how=self._login(reference),
                opts=child_opts(self._parent, provider=self._provider),
            )
        return self._made[key]

    def _login(self, reference: str) -> dict[str, pulumi.Input[str]]:
        """The registry's credentials, for its own images only."""
        registry = self._registry
        if registry is None or registry.username is None or registry.password is None:
            return {}
        if reference.split("/")[0] != registry.mirror.split("/")[0]:
            return {}
        password = pulumi.Output.secret(registry.password.get_secret_value())
        return {"username": registry.username, "password": password}

    def _built(self, name: str) -> Image:
        if name not in self._made:
            bases = {argument: self._built(base) for argument, base in CATALOGUE[name].bases.items()}
            references = {argument: built_reference(base) for argument, base in CATALOGUE[name].bases.items()}
            self._made[name] = Image(
                f"image-{name}",
                title=name,
                reference=built_reference(name),
                how={
                    "context": str(IMAGES),
                    "dockerfile": f"{name}/Dockerfile",
                    "folders": [name, *SHARED],
                    "args": {**self._build_args, **references},
                },
                opts=child_opts(self._parent, provider=self._provider, depends_on=list(bases.values())),
            )
        return self._made[name]
