"""Real guests, four ways: no COLO, QEMU's own colo-compare, this proxy inline, this proxy as a drop-in.

    python -m tests.bench.colo_report [--short] [--seconds S] [--rounds N] [--failovers N] [--from JSON]

All four are up at the same time, and the workloads take turns on them, so that what else goes on at the
machine concerns each of them. Writes `colo.json`, anew after each round, and of that `qemu-report.md`,
`readme.md` and `qemu-report.svg`; `--from` writes these once more. Absolute figures are those of the
machine, and of guests without KVM; the differences between the four are what is measured. Root only.
"""

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from colo_compare.demo.qemu.image import QEMU, Image, image
from tests.bench import installed, report
from tests.bench.colo_forms import FORMS, save_state
from tests.bench.colo_measure import Standing, try_failover
from tests.bench.colo_page import page, readme
from tests.bench.colo_plot import draw
from tests.bench.colo_results import Results, read_json, write_json
from tests.bench.colo_tables import target_table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="one short turn of each, three failovers")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one turn")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--failovers", type=int, default=20)
    parser.add_argument("--plain", action="store_true", help="the sources as they are, not compiled")
    parser.add_argument("--from", type=Path, dest="raw", metavar="JSON", help="write the page once more")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), metavar="DIR")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.seconds, arguments.rounds, arguments.failovers = 1.0, 1, 3
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.raw is not None:
        publish(read_json(arguments.raw), arguments.out)
        return
    if not arguments.plain and not installed.is_running():
        installed.run_again(arguments.out / "installed", "tests.bench.colo_report")
    os.environ["PYTHONSAFEPATH"] = "1"  # the proxies do not take the sources of the current directory either
    results = Results(conditions(arguments))
    raw = arguments.out / "colo.json"
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        guest, state = image(tls=True), Path(directory, "state")
        save_state(guest, state)
        for _ in measure(results, guest, state, arguments):
            results.about["load"] = f"{os.getloadavg()[0]:.1f} at the end, niceness {os.nice(0)}"
            results.about["took"] = f"{(time.monotonic() - began) / 60:.0f} min"
            write_json(results, raw)  # first of all: whatever fails later, these are the figures
    publish(results, arguments.out)


def publish(results: Results, out: Path) -> None:
    """Write the page, the README's paragraph and the picture, and show the targets."""
    (out / "qemu-report.md").write_text(page(results))
    (out / "readme.md").write_text(readme(results))
    draw(results.cells, results.failovers, out / "qemu-report.svg")
    print("\n".join(target_table(results.cells, results.failovers)))


def measure(results: Results, guest: Image, state: Path, arguments: argparse.Namespace) -> Iterator[None]:
    """Let every workload take turns on all forms, then make the failovers; yields after each round."""
    with ExitStack() as stack:
        forms = [stack.enter_context(Standing(kind, guest, state)) for kind in FORMS]
        for number in range(arguments.rounds):
            for workload, cells in results.cells.items():
                for form in forms:
                    form.take_turn(workload, arguments.seconds, cells[form.kind])
                asked = ", ".join(str(len(cell.latencies)) for cell in cells.values())
                show(f"round {number + 1} of {arguments.rounds}: {workload.name}: {asked} questions")
            yield
    for number in range(arguments.failovers):
        for kind, seen in results.failovers.items():
            try_failover(kind, guest, state, seen)
        show(f"failover {number + 1} of {arguments.failovers}")
        yield


def conditions(arguments: argparse.Namespace) -> dict[str, Any]:
    """Give what the figures were measured on, and how."""
    version = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout
    about = report.machine()
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{about['processors']} x {about['processor']}, Linux {about['kernel']}",
        "guests": f"{version.splitlines()[0]}, -accel tcg, 128 MiB, Linux of Debian 12, TCP timestamps off",
        "proxy": f"Python {about['python']}, {about['version']}, default settings, heartbeat 100 ms",
        "checkpoints": "regular ones are off with both proxies, so that those for a difference are counted",
        "turns": f"{arguments.rounds} of {arguments.seconds:g} s for each workload on each form, one client",
    }


def show(text: str) -> None:
    print(f"  {text}", flush=True)


if __name__ == "__main__":
    main()
