"""The benchmark suite: every table against its real peers, side by side, in turns.

    python -m tests.bench [--short] [--rounds N] [--out DIR] [TABLE ...]

Prints each row with its target, and writes `bench.json` and `bench.png`. Absolute figures are the machine's;
only ratios of what was measured next to each other mean anything.
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import dropin, report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("build/bench"), metavar="DIR")
    parser.add_argument("tables", nargs="*")
    arguments = parser.parse_args()
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), **report.machine()}
    results = report.Results()
    dropin.measure(results, arguments.rounds)
    arguments.out.mkdir(parents=True, exist_ok=True)
    report.write_json(results, about, arguments.out / "bench.json")


if __name__ == "__main__":
    main()
