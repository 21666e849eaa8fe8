"""The benchmark suite: every table against its real peers, side by side, in turns.

    python -m tests.bench [--short] [--plain] [--rounds N] [--out DIR] [TABLE ...]

Compiles the proxy first, prints each row with its target, and writes
`bench.json`, `bench.md` and `bench.png`. Absolute figures are the machine's; only ratios of what was measured
next to each other mean anything.
"""

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import dropin, growth, inline, installed, plot, report
from tests.bench.process import ROOT

TABLES: dict[str, Callable[[report.Results, int, bool], None]] = {
    "dropin": dropin.measure,
    "inline": inline.measure,
    "growth": growth.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="fewer cases and frames: about a minute")
    parser.add_argument("--plain", action="store_true", help="the sources as they are, not compiled")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of each case (3)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", metavar="DIR")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; all of them")
    arguments = parser.parse_args()
    unknown = set(arguments.tables) - set(TABLES)
    if unknown:
        parser.error(f"there is no table {unknown.pop()}: there are {', '.join(TABLES)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.plain and not installed.is_running():
        installed.run_again(arguments.out / "installed")
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), **report.machine()}
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    results = report.Results()
    for name in arguments.tables or TABLES:
        print(f"\n{name}", flush=True)
        TABLES[name](results, arguments.rounds, arguments.short)
    report.write_json(results, about, arguments.out / "bench.json")
    report.write_markdown(results, arguments.out / "bench.md")
    plot.draw(results, arguments.out / "bench.png")
    print(f"\nwritten: {arguments.out}/bench.json, bench.md, bench.png")


if __name__ == "__main__":
    main()
