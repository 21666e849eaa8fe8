"""Faults put into the core on purpose: does the simulator find them, and how soon?

``python -m tests.simulation.mutations`` tries seeds from 0 on for each and prints the table of
docs/simulator.md and the seeds of `FIRST_SEEDS`; with names as arguments, only those. Each mutation is a
small replacement in the text of one file, made in a copy of the package; its text must be there exactly once.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import colo_compare

PACKAGE = Path(colo_compare.__file__).resolve().parent
MOST_SEEDS = 3000
PATIENCE = 900.0  # seconds for one mutation


@dataclass(frozen=True)
class Mutation:
    """A fault."""

    name: str
    file: str  # in core/
    old: str
    new: str

    def apply(self, package: Path) -> None:
        """Put it into a copy of the package. Raises LookupError where its text is not there exactly once."""
        path = package / "core" / self.file
        text = path.read_text()
        found = text.count(self.old)
        if found != 1:
            raise LookupError(f"{self.name}: {self.old!r} is {found} times in core/{self.file}")
        path.write_text(text.replace(self.old, self.new))


MUTATIONS = (
    Mutation("frames go before the first commit", "tcp_release.py",
             "if flow.blocked or not (self.ledger.protected or self.ledger.mode == OBSERVE):",
             "if flow.blocked:"),
    Mutation("datagrams go before the first commit", "datagrams.py",
             "return not flow.blocked and (self.ledger.protected or self.ledger.mode == OBSERVE)",
             "return not flow.blocked"),
    Mutation("payload is not compared", "stream.py",
             "if not same_bytes(first.data, first.at, data, at, length):", "if False:"),
    Mutation("what lies beyond a hole is not compared", "stream.py",
             "self._compare_beyond(self.primary, self.secondary)", "pass"),
    Mutation("no gate for acknowledgements", "tcp_release.py",
             "if not secondary.placed or ack > secondary.ack:", "if not secondary.placed:"),
    Mutation("a FIN is not compared", "tcp_release.py", "if flow.secondary.fin != end:", "if False:"),
    Mutation("a reset goes by itself", "tcp_release.py", "return flow.secondary.reset", "return True"),
    Mutation("no clamp of the window", "tcp_release.py", "if frame.window << shift <= room:", "if True:"),
    Mutation("timestamps are not lifted", "tcp_release.py", "elif flow.monotonic:", "elif False:"),
    Mutation("a commit leaves the old sequence offset", "tcp_flow.py",
             "        self.seq_offset = other.seq_offset\n", ""),
    Mutation("a commit leaves the old timestamp offset", "tcp_flow.py",
             "        self.ts_offset = other.ts_offset\n", ""),
    Mutation("a commit leaves the comparison behind", "tcp_flow.py",
             "        self.generation = generation\n        self.secondary.become(self.primary)\n",
             "        self.generation = generation\n        return\n"),
    Mutation("the old secondary's words survive a load", "proxy.py",
             "            self._pair.void_waiting()\n", ""),
    Mutation("the old secondary's datagrams survive a commit", "pair.py",
             "                + self.dispatch.datagrams.void_secondary()\n", ""),
    Mutation("what the primary sent after its pause counts as before", "pair.py",
             "if paused and is_compared(frame):",
             "if False and is_compared(frame):"),
    Mutation("nobody reports the pause, and it is waited for", "pair.py",
             "if not self.ledger.settings.reports_pause:", "if False:"),
    Mutation("the client's frames do not wait for a commit", "pair.py",
             "comparing = self.ledger.epochs.state == COMPARING", "comparing = True"),
    Mutation("a commit mirrors nothing again", "pair.py",
             "self.dispatch.tcp.mirror.resend_unacknowledged()", "pass"),
    Mutation("a full queue drops", "ledger.py",
             'self.want_checkpoint(PRESSURE, "")', "self.discard(held, FAILOVER)"),
    Mutation("a full queue is read on", "proxy.py",
             "return self.held_frames < settings.max_held_frames and", "return"),
    Mutation("a divergence asks for nothing", "ledger.py",
             "        self.want_checkpoint(reason, flow)\n", ""),
    Mutation("nothing stands still for want of a secondary", "ledger.py",
             "return self.mode == PROTECT or self.mode == BLOCK", "return self.mode == PROTECT"),
    Mutation("a dead primary's held frames go out", "pair.py",
             "        discarded = ledger.discard_all()",
             "        for held in ledger.holds.entries():\n"
             "            self.dispatch.let_go(held, UNPROTECTED)\n"
             "        discarded = ledger.discard_all()"),
    Mutation("a promotion flushes nothing", "tcp.py",
             "                flushed.append(self._flush(flow, frame))\n",
             "                self._flush(flow, frame)\n"),
    Mutation("a promoted guest loses its sequence offset", "tcp_flow.py",
             "        self.primary = self.secondary\n",
             "        self.primary = self.secondary\n        self.primary.seq_offset = 0\n"),
    Mutation("a promoted guest loses its timestamp offset", "tcp_flow.py",
             "        self.primary = self.secondary\n",
             "        self.primary = self.secondary\n        self.primary.ts_offset = 0\n"),
    Mutation("acknowledgements are not translated", "mirror.py",
             "new_ack = (wrap(ack) - seq_offset) & 0xFFFFFFFF", "new_ack = wrap(ack)"),
    Mutation("SACK blocks are not translated", "mirror.py", "tsecr, -seq_offset)", "tsecr, 0)"),
    Mutation("an echo in the handshake is only shifted", "mirror.py",
             "if not guest.settled and guest.tsval >= 0 and inexact:", "if False:"),
)  # fmt: skip


def mutated_package(mutation: Mutation, directory: Path) -> None:
    """Put a copy of the package's core, with the fault in it, and links to all the rest into a directory."""
    copy = directory / PACKAGE.name
    copy.mkdir()
    for entry in PACKAGE.iterdir():
        if entry.name not in ("core", "__pycache__"):
            (copy / entry.name).symlink_to(entry)
    ignored = shutil.ignore_patterns("*.so", "__pycache__")  # compiled code would be run in its place
    shutil.copytree(PACKAGE / "core", copy / "core", ignore=ignored)
    mutation.apply(copy)


def look_for(mutation: Mutation, first: int, seeds: int) -> tuple[int, str] | None:
    """Run seeds on a core with the fault; give the first that finds it and what it says, or None."""
    with tempfile.TemporaryDirectory() as directory:
        mutated_package(mutation, Path(directory))
        try:
            done = subprocess.run(
                [sys.executable, "-c", _SEARCH, str(first), str(seeds)],
                env={**os.environ, "PYTHONPATH": directory, "PYTHONDONTWRITEBYTECODE": "1"},
                cwd=directory, stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return None
    seed, _, what = done.stdout.strip().partition(" ")
    return (int(seed), what) if seed else None


_SEARCH = """
import sys
from colo_compare.simulate.runs import run
from colo_compare.simulate.scenario import draw
first, seeds = int(sys.argv[1]), int(sys.argv[2])
for seed in range(first, first + seeds):
    found = run(draw(seed)).violation
    if found:
        print(seed, found)
        break
"""


def main() -> int:
    """Print the table; 1 if a fault is not found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--most", type=int, default=MOST_SEEDS)
    arguments = parser.parse_args()
    wanted = [each for each in MUTATIONS if not arguments.names or each.name in arguments.names]
    missed = []
    seeds: dict[str, int] = {}
    print("| fault in the core | file | seeds | what the simulator says first |\n|---|---|---|---|")
    for mutation in wanted:
        found = look_for(mutation, 0, arguments.most)
        if found is None:
            missed.append(mutation.name)
            print(f"| {mutation.name} | {mutation.file} | not in {arguments.most} | |", flush=True)
            continue
        seeds[mutation.name] = found[0]
        what = found[1].replace("|", "/").split(": TCP")[0].split(": UDP")[0][:110]
        print(f"| {mutation.name} | {mutation.file} | {found[0] + 1} | {what} |", flush=True)
    print("\n" + "\n".join(f"    {name!r}: {seed}," for name, seed in seeds.items()))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
