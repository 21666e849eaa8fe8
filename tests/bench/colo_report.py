"""Real guests, four ways: no COLO, QEMU's own colo-compare, this proxy inline, this proxy as a drop-in.

    python -m tests.bench.colo_report [--short] [--seconds S] [--rounds N] [--failovers N]

All four are up at the same time, and the workloads take turns on them, so that what else goes on at the
machine concerns each of them. Writes `colo.md`, `colo.json` and `colo.svg`. Absolute figures are those of the
machine, and of guests without KVM; the differences between the four are what is measured. Root only.
"""

import argparse
import os
import subprocess
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from colo_compare.demo.qemu.image import QEMU, image
from tests.bench import installed, report
from tests.bench.colo_forms import FORMS, Alone, Form, save_state
from tests.bench.colo_measure import Cell, Failovers, fail_over, take_turn
from tests.bench.colo_tables import draw, markdown, write_json
from tests.bench.colo_workloads import WORKLOADS, Workload


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="one short turn of each, three failovers")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one turn")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--failovers", type=int, default=20)
    parser.add_argument("--plain", action="store_true", help="the sources as they are, not compiled")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), metavar="DIR")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.seconds, arguments.rounds, arguments.failovers = 1.0, 1, 3
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.plain and not installed.is_running():
        installed.run_again(arguments.out / "installed", "tests.bench.colo_report")
    os.environ["PYTHONSAFEPATH"] = "1"  # the proxies do not take the sources of the current directory either
    about = conditions(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        guest, state = image(tls=True), Path(directory, "state")
        save_state(guest, state)
        with ExitStack() as stack:
            forms = [stack.enter_context(kind(guest, state)) for kind in FORMS]
            cells = measure(forms, arguments.seconds, arguments.rounds)
        failovers = {kind: Failovers() for kind in FORMS if kind is not Alone}
        for number in range(arguments.failovers):
            for kind, seen in failovers.items():
                fail_over(kind, guest, state, seen)
            show(f"failover {number + 1} of {arguments.failovers}")
    about["load"] = f"{os.getloadavg()[0]:.1f} at the end, niceness {os.nice(0)}"
    about["took"] = f"{(time.monotonic() - began) / 60:.0f} min"
    text = markdown(about, cells, failovers)
    (arguments.out / "colo.md").write_text(text)
    write_json(about, cells, failovers, arguments.out / "colo.json")
    draw(cells, failovers, arguments.out / "colo.svg")
    print(text)


def measure(forms: list[Form], seconds: float, rounds: int) -> dict[Workload, dict[type[Form], Cell]]:
    """Let every workload take turns on all forms."""
    cells = {workload: {type(form): Cell() for form in forms} for workload in WORKLOADS}
    for number in range(rounds):
        for workload in WORKLOADS:
            for form in forms:
                take_turn(form, workload, seconds, cells[workload][type(form)])
            asked = [len(cells[workload][type(form)].latencies) for form in forms]
            show(f"round {number + 1} of {rounds}: {workload.name}: {', '.join(map(str, asked))} questions")
    return cells


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
