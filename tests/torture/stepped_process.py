"""``servelens proxy`` and ``servelens collector`` with a clock that can be stepped, and otherwise as they are."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from servelens.processes import collector, proxy
from tests.torture.stepped_clock import SteppedClock


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--clock", type=Path, required=True)
    arguments = parser.parse_args()
    clock = SteppedClock(arguments.clock)
    if arguments.name == "collector":
        return collector.run(arguments.config, supervised=False, clock=clock)
    return proxy.run(arguments.config, arguments.name, supervised=False, clock=clock)


if __name__ == "__main__":
    sys.exit(main())
