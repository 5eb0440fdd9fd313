"""Configuration templates: Jinja2 files below ``configs/``."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

CONFIGS = Path("configs")


@cache
def _environment() -> Environment:
    # Configuration files, not HTML: what needs escaping says so in its template (`| e`).
    return Environment(
        loader=FileSystemLoader(CONFIGS),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def render(template: str, **values: object) -> str:
    """The text of ``configs/<template>``.

    Raises:
        jinja2.UndefinedError: when the template uses a value that is not given.
    """
    return _environment().get_template(template).render(**values)
