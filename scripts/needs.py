"""The estimate of a stack as JSON, for the summary of a preview: ``python -m scripts.needs STACK``.

Runs in the project's Python environment: it takes the platform's own settings and services.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys

from components.fit import judged
from components.stack_file import read
from scripts.versions import ROOT


def _main(stack: str) -> int:
    project = re.search(r"^name:\s*(\S+)", (ROOT / "Pulumi.yaml").read_text(), re.MULTILINE)
    settings = read(ROOT / f"Pulumi.{stack}.yaml")
    found = judged(settings, project[1] if project else "", stack)
    sums = {name: getattr(found, name) for name in ("memory_mib", "limit_mib", "disk_mb", "monthly_usd")}
    host = dataclasses.asdict(found.host) if found.host else None
    if host:
        host = {key: host[key] for key in ("name", "memory_mib", "disk_mb")}
    costs = [dataclasses.asdict(cost) for cost in found.costs]
    lines = {"problems": list(found.problems), "warnings": list(found.warnings)}
    if costs:
        from components.digitalocean_prices import AS_OF

        lines["prices_of"] = [str(AS_OF)]
    print(json.dumps({**sums, "reserve_mib": found.reserve_mib, "host": host, "costs": costs, **lines}))
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
