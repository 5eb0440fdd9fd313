"""Millrace: settings -> platform -> outputs."""

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env

from components.platform import Platform
from components.problems import SettingsError
from components.settings import from_config, load

try:
    settings = load(from_config({**get_config_env(), **CONFIG.get()}), f"Pulumi.{pulumi.get_stack()}.yaml")
except SettingsError as error:
    # RunError ends the program with this text alone, no traceback.
    raise pulumi.RunError(str(error)) from None
Platform(settings).export()
