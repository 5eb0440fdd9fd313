"""Millrace: settings -> platform -> outputs."""

import os
import signal

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env, get_config_secret_keys_env

from components.digitalocean_keys import missing_keys, missing_token
from components.fit import judged
from components.platform import Platform
from components.problems import SettingsError
from components.settings import NAMESPACE, from_config, load, secret_names
from components.targets.docker_host import engine_problem, remove_files


# By this signal the engine ends programs of updates that failed or were stopped. As an exception it may come
# up anywhere, also where Python can only print it, and people would read a traceback beside what went wrong.
def _end(*_: object) -> None:
    try:
        remove_files()
    finally:
        os._exit(128 + signal.SIGINT)


signal.signal(signal.SIGINT, _end)

config = {**get_config_env(), **CONFIG.get()}
stack_file = f"Pulumi.{pulumi.get_stack()}.yaml"
try:
    settings = load(
        from_config(config),
        stack_file,
        secret_names(get_config_secret_keys_env()),
    )
except SettingsError as error:
    # RunError ends the program with this text alone, no traceback.
    raise pulumi.RunError(str(error)) from None
target = settings.target
# A host that the program makes is waited for by a resource.
if target.kind == "docker" and not pulumi.runtime.is_dry_run() and (problem := engine_problem(target)):
    raise pulumi.RunError(problem)
if target.kind == "digitalocean":
    if missing := missing_keys(target, config):
        raise pulumi.RunError(missing.line(stack_file, NAMESPACE))
    if missing := missing_token(config):
        # A first look at what it would make and cost takes none.
        if not pulumi.runtime.is_dry_run():
            raise pulumi.RunError(missing.line(stack_file, NAMESPACE))
        pulumi.log.warn(missing.line(stack_file, NAMESPACE))
fit = judged(settings, pulumi.get_project(), pulumi.get_stack())
if fit.problems:
    raise pulumi.RunError("\n".join(fit.problems))
for warning in fit.warnings:
    pulumi.log.warn(warning)
Platform(settings).export()
