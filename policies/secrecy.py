"""Rules for secrets that somebody could read: on the engine, in the state, in the outputs.

A rule sees what the program hands to Pulumi and Pulumi's own marks. It cannot see into images, nor recognise
a secret that was changed (hashed, encoded) after its mark was lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from policies.rules import CONTAINER, JOB, NETWORK, VOLUME, Resource, Rule, Stack
from policies.values import dotted, has_secret, plain_texts, secret_texts

# What `docker inspect` or `ps` show, marked or not.
_SHOWN = {
    CONTAINER: ("envs", "labels", "entrypoints", "command", "healthcheck", "hostname", "name"),
    JOB: ("env", "labels", "command", "name"),
    NETWORK: ("labels", "options"),
    VOLUME: ("labels", "driverOpts"),
    "millrace:docker:Network": ("labels",),
}

_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_PASSWORD_IN_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@]+:[^\s/:@]+@", re.I)
_SECRET_VARIABLE = re.compile(
    r"(?:^|_)(?:password|passwd|passphrase|secret|token|api_?key|private_?key|access_?key|secret_?key)$", re.I
)
_SECRET_ARGUMENT = re.compile(r"--?(?:password|passwd|passphrase|secret|token|api-?key)[=\s]+\S", re.I)
# What stands for "none", and paths of files that hold the secret.
_NO_SECRET = re.compile(r"(?:|/.*|\d{1,5}|true|false|none|null|yes|no)", re.I | re.S)

_SHORTEST = 12
_PUBLIC = ("-----BEGIN CERTIFICATE", "-----BEGIN PUBLIC KEY", "ssh-", "ecdsa-")


def secrets_in_plain(resource: Resource, stack: Stack) -> Iterator[str]:
    """No secret stands where it can be read."""
    for key in _SHOWN.get(resource.type, ()):
        if has_secret(resource.props.get(key)):
            yield f"has a secret in {key}, which the engine shows - put it into a secret file"
    yield from _variables(resource)
    for path, text in plain_texts(resource.props):
        where = dotted(path)
        if _PRIVATE_KEY.search(text):
            yield f"has a private key in plain in {where} - mark it with pulumi.Output.secret"
        elif _PASSWORD_IN_ADDRESS.search(text):
            yield f"has an address with a password in plain in {where} - put it into a secret file"
        if any(secret in text for secret in stack.secrets):
            yield (
                f"has a secret of the stack's configuration in plain in {where} - mark it with "
                f"pulumi.Output.secret"
            )


def _variables(resource: Resource) -> Iterator[str]:
    """Variables and arguments that are called secret."""
    if resource.type == JOB:
        pairs = (resource.get("env") or {}).items()
        command = resource.get("command") or []
    elif resource.type == CONTAINER:
        texts = [entry for entry in resource.get("envs") or [] if isinstance(entry, str)]
        pairs = [tuple(text.partition("=")[::2]) for text in texts]
        command = [*(resource.get("entrypoints") or []), *(resource.get("command") or [])]
    else:
        return
    for name, value in pairs:
        if isinstance(value, str) and _SECRET_VARIABLE.search(name) and not _NO_SECRET.fullmatch(value):
            yield f"has the variable {name} with its value in plain - put it into a secret file"
    line = " ".join(part for part in command if isinstance(part, str))
    if found := _SECRET_ARGUMENT.search(line):
        argument = re.split(r"[=\s]", found.group())[0]
        yield f"has {argument} in its command line - put the value into a secret file"


def leaks(resources: Iterable[Resource]) -> Iterator[tuple[str, str]]:
    """Secrets of one resource that stand in plain at another: URN and what is wrong.

    Known are values that Pulumi marks one by one: what random and tls generate, passwords, addresses with
    them. Of a marked list or mapping nobody knows which part is secret.
    """
    everything = list(resources)
    secrets = {
        text
        for resource in everything
        for text in secret_texts(resource.props)
        if len(text) >= _SHORTEST and not text.startswith(_PUBLIC)
    }
    if not secrets:
        return
    pattern = re.compile("|".join(map(re.escape, sorted(secrets, key=len, reverse=True))))
    for resource in everything:
        for path, text in plain_texts(resource.props):
            if len(text) >= _SHORTEST and pattern.search(text):
                yield (
                    resource.urn,
                    f"has a secret in plain in {dotted(path)} - mark it with pulumi.Output.secret",
                )


RULES = (
    Rule(
        name="no-plain-secrets",
        description="No secret stands in plain in variables, labels, commands, other inputs or outputs.",
        check=secrets_in_plain,
        types=None,
    ),
)
