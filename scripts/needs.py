"""The estimate of a stack as JSON, for the summary of a preview: ``python -m scripts.needs STACK``.

One that the settings do not allow is ``{"failed": why}``. With ``--alone`` no engine is asked. Runs
in the project's Python environment: it takes the platform's own settings and services.
"""

from __future__ import annotations

import argparse
import json
import re
import sys

from components.digitalocean_prices import AS_OF
from components.estimate_table import document
from components.fit import judged
from components.problems import SettingsError
from components.stack_file import read
from scripts.versions import ROOT


def _main(stack: str, *, alone: bool = False) -> int:
    project = re.search(r"^name:\s*(\S+)", (ROOT / "Pulumi.yaml").read_text(), re.MULTILINE)
    try:
        settings = read(ROOT / f"Pulumi.{stack}.yaml")
    except SettingsError as error:
        print(json.dumps({"failed": str(error)}))
        return 0
    found = judged(settings, project[1] if project else "", stack, alone=alone)
    print(json.dumps({**document(found), "prices_of": str(AS_OF)}))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stack")
    parser.add_argument("--alone", action="store_true", help="without asking an engine")
    options = parser.parse_args()
    sys.exit(_main(options.stack, alone=options.alone))
