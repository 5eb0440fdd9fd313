"""``python -m sources simulate | probe | seed``; each imports no more than it needs."""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> int:
    """Run one of the programs."""
    match arguments:
        case ["simulate"]:
            from sources import simulator

            simulator.main()
        case ["probe"]:
            from sources import heartbeat

            return heartbeat.main()
        case ["seed"]:
            from sources import seeder

            return seeder.main()
        case _:
            print("usage: python -m sources simulate | probe | seed", file=sys.stderr)
            return 2
    return 0


sys.exit(main(sys.argv[1:]))
