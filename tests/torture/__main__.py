"""``python -m tests.torture --minutes 5``: prints what it does and, as the last line, its figures as JSON.

Exit status 0 when every record was accounted for. Otherwise the folder with everything in it is kept and named.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.torture.run import torture


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Kill, fill, cut off and damage everything, and count the records"
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="how long faults and load go on")
    parser.add_argument(
        "--seed", type=int, default=None, help="repeat the order of the faults of another run"
    )
    parser.add_argument(
        "--no-mount", action="store_true", help="fill the disk without a file system of its own"
    )
    arguments = parser.parse_args()
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    started = time.monotonic()

    def say(line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - started:7.1f} s  {line}\n")
        sys.stdout.flush()

    say(f"seed {seed} in {folder}")
    figures = torture(folder, arguments.minutes * 60, seed, say, may_mount=not arguments.no_mount)
    if figures["problems"]:
        say(f"everything is kept in {folder}")
    else:
        shutil.rmtree(folder)
    sys.stdout.write(json.dumps(figures) + "\n")
    return 1 if figures["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
