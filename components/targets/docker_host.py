"""Where the Docker target's engine is, and how both providers reach it.

An :class:`EngineHost` comes from the settings (:func:`of_settings`), or from a target that makes the host
itself (:func:`ssh_host`): then its values are outputs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulumi

from components.settings import DockerTarget, Settings
from components.targets.docker_hooks import engine, unreachable

if TYPE_CHECKING:
    from millrace.engine import Engine

_PROVIDER = str(Path(__file__).resolve().parents[2] / "provider")
if _PROVIDER not in sys.path:
    sys.path.append(_PROVIDER)

from millrace import ssh_key, ssh_options  # noqa: E402 - the provider is a program of its own, not installed


@dataclass(frozen=True, kw_only=True)
class EngineHost:
    """An engine and the way to it. Both providers get the same, so that they share one connection.

    ``host`` is its address, ``ssh_options`` are all arguments for ssh, ``ssh_key`` is the private key where
    it is given as text (secret). ``materials`` are PEM texts for TLS. Providers wait for ``after``: the
    engine answers once these resources exist.
    """

    host: pulumi.Input[str]
    ssh_options: pulumi.Input[Sequence[str]] = ()
    ssh_key: pulumi.Input[str] | None = None
    materials: Mapping[str, str] = field(default_factory=dict)
    after: Sequence[pulumi.Resource] = ()

    def docker_args(self) -> dict[str, Any]:
        """Arguments of ``pulumi_docker.Provider``."""
        pems = self.materials
        return {
            "host": self.host,
            "ca_material": pems.get("caMaterial"),
            "cert_material": pems.get("certMaterial"),
            "key_material": pulumi.Output.secret(pems["keyMaterial"]) if "keyMaterial" in pems else None,
            "ssh_opts": _list_or_none(self.ssh_options),
        }

    def millrace_props(self) -> dict[str, pulumi.Input[str]]:
        """Inputs of Millrace's own provider; lists as JSON, the way Pulumi hands them to a provider."""
        options = pulumi.Output.from_input(self.ssh_options)
        props: dict[str, pulumi.Input[str]] = {
            "host": self.host,
            "sshOptions": options.apply(lambda listed: json.dumps(list(listed))),
        }
        if self.ssh_key is not None:
            props["sshKey"] = pulumi.Output.secret(self.ssh_key)
        for key, value in self.materials.items():
            props[key] = pulumi.Output.secret(value) if key == "keyMaterial" else value
        return props


def named_engine(settings: Settings) -> DockerTarget:
    """The settings of an engine that is there already.

    Raises:
        TypeError: when the target makes its host.
    """
    if not isinstance(settings.target, DockerTarget):
        raise TypeError(f"target {settings.target.kind} names no engine: its host has to be made first")
    return settings.target


def of_settings(target: DockerTarget) -> EngineHost:
    """The engine that the settings name."""
    key = target.private_key.get_secret_value() if target.private_key else None
    return EngineHost(
        host=target.host, ssh_options=ssh_arguments(target), ssh_key=key, materials=materials(target)
    )


def ssh_host(
    *,
    user: pulumi.Input[str],
    address: pulumi.Input[str],
    private_key: pulumi.Input[str],
    host_key: pulumi.Input[str],
    port: pulumi.Input[int] = 22,
    options: Sequence[str] = (),
    after: Sequence[pulumi.Resource] = (),
) -> EngineHost:
    """The engine of a host that the program makes: reached with a key that is a resource's output.

    Args:
        user: Who logs in; may use the engine there.
        address: IP address or name.
        private_key: In OpenSSH or PEM form, without passphrase. It gets into the state as a secret only, and
            into a file of mode 0600 while a provider runs.
        host_key: The host's public key, ``type base64``; no other is accepted.
        port: Of the SSH server.
        options: Further arguments for ssh.
        after: What must exist before anybody logs in: readiness of the host.
    """
    # The key of the file's name is a hash, which may be seen; made of a secret, it would be one too.
    key_file = pulumi.Output.unsecret(pulumi.Output.secret(private_key).apply(ssh_key.file_of))
    host = pulumi.Output.concat("ssh://", user, "@", address, ":", pulumi.Output.from_input(port).apply(str))

    def listed(values: list[Any]) -> list[str]:
        ssh_options.make_folder()
        where, file, known = values
        # A comment behind the key is none of ssh's business.
        pinned = " ".join(str(known).split()[:2])
        return list(
            ssh_options.arguments(where, key_file=file, key_is_placed=True, host_key=pinned, own=options)
        )

    return EngineHost(
        host=host,
        ssh_options=pulumi.Output.all(host, key_file, host_key).apply(listed),
        ssh_key=private_key,
        after=after,
    )


def engine_problem(target: DockerTarget) -> str | None:
    """Why the target's engine does not answer, in one line, or None when it does."""
    return unreachable(_props(target))


def engine_of(target: DockerTarget) -> Engine:
    """A client of the target's engine, lazily connected."""
    return engine(_props(target))


def stop_host(address: str, *, private_key: str, host_key: str, data: str, device: str) -> str | None:
    """Stop all containers and the engine of a host that the program made, and unmount its data volume.

    Returns why that could not be done, in one line, or None.
    """
    from millrace.engine import Engine, EngineError, HostSettings
    from millrace.host import stop

    ssh_options.make_folder()
    options = ssh_options.arguments(
        address,
        key_file=ssh_key.file_of(private_key),
        key_is_placed=True,
        host_key=" ".join(host_key.split()[:2]),
    )
    engine = Engine(HostSettings(host=address, ssh_options=options, ssh_key=private_key))
    try:
        stop(engine, data, device)
    except EngineError as error:
        return str(error)
    finally:
        engine.close()
    return None


def remove_files() -> None:
    """Remove what this program wrote to reach engines, key material above all, and wait for nothing."""
    # Nothing was, before this is loaded; and a handler of signals had better not load anything.
    if engines := sys.modules.get("millrace.engine"):
        engines.remove_files()


def materials(target: DockerTarget) -> dict[str, str]:
    """PEM texts for an engine behind TLS, by the names the providers use."""
    if target.host.startswith("ssh://"):
        return {}
    files = {"caMaterial": target.ca, "certMaterial": target.certificate, "keyMaterial": target.key}
    # What stands around a PEM block may be in any encoding.
    return {name: Path(path).expanduser().read_text(errors="replace") for name, path in files.items() if path}


def ssh_arguments(target: DockerTarget) -> tuple[str, ...]:
    """All arguments of ssh for the target but user, port and host; none where it isn't reached by ssh."""
    if not target.host.startswith("ssh://"):
        return ()
    ssh_options.make_folder()
    key = target.private_key.get_secret_value() if target.private_key else None
    return ssh_options.arguments(
        target.host,
        key_file=ssh_key.file_of(key) if key else target.key,
        key_is_placed=key is not None,
        host_key=" ".join(target.host_key.split()[:2]) if target.host_key else None,
        known_hosts=target.known_hosts,
        own=target.ssh_options,
    )


def _props(target: DockerTarget) -> dict[str, str]:
    key = target.private_key.get_secret_value() if target.private_key else None
    options = json.dumps(list(ssh_arguments(target)))
    props = {"host": target.host, "sshOptions": options, **materials(target)}
    return {**props, "sshKey": key} if key else props


def _list_or_none(options: pulumi.Input[Sequence[str]]) -> pulumi.Input[Sequence[str]] | None:
    return list(options) or None if isinstance(options, list | tuple) else options
