"""All rules of the pack."""

from __future__ import annotations

from policies import containers, data, firewalls, secrecy
from policies.rules import Rule

RULES: tuple[Rule, ...] = (*containers.RULES, *data.RULES, *firewalls.RULES, *secrecy.RULES)
