"""Many seeds, on several processes, and what is told of them."""

import json
import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from colo_compare.simulate.runs import Result, replay, run, shrink
from colo_compare.simulate.scenario import WISHES

_CHUNK: Final = 20  # seeds that a process takes at once
_SHRUNK: Final = 5  # violations that are shrunk and told in full


@dataclass
class Tally:
    """What came of many runs."""

    runs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    released: int = 0
    probes: int = 0
    virtual: float = 0.0
    violations: list[tuple[int, str, bool]] = field(default_factory=list)  # seed, what, whether probed

    def add(self, result: Result, *, probed: bool) -> None:
        """Count one run."""
        self.runs += 1
        self.faults += result.faults
        self.lost += result.lost
        self.released += result.released
        self.probes += result.probes
        self.virtual += result.seconds
        if result.violation:
            self.violations.append((result.seed, result.violation, probed))

    def merge(self, other: "Tally") -> None:
        """Count what another process has counted."""
        self.runs += other.runs
        self.faults += other.faults
        self.lost += other.lost
        self.released += other.released
        self.probes += other.probes
        self.virtual += other.virtual
        self.violations += other.violations


def run_chunk(chunk: tuple[int, int, int]) -> Tally:
    """Run the seeds from the first on, so many, every n-th of them probed (0: none)."""
    first, count, probe = chunk
    tally = Tally()
    for seed in range(first, first + count):
        probed = probe > 0 and seed % probe == 0
        tally.add(run(replay(seed, None, calm=False), probed=probed), probed=probed)
    return tally


def run_many(first: int, seeds: int, jobs: int, probe: int, most: int) -> Tally:
    """Run many seeds; stop early after `most` violations."""
    chunks = [(at, min(_CHUNK, first + seeds - at), probe) for at in range(first, first + seeds, _CHUNK)]
    total = Tally()
    for tally in _tallies(chunks, jobs):
        total.merge(tally)
        if len(total.violations) >= most:
            break
    total.violations.sort()
    return total


def _tallies(chunks: list[tuple[int, int, int]], jobs: int) -> Iterator[Tally]:
    if jobs == 1:
        yield from map(run_chunk, chunks)
        return
    with multiprocessing.get_context("fork").Pool(jobs, _leave_interrupts) as pool:
        yield from pool.imap_unordered(run_chunk, chunks)


def _leave_interrupts() -> None:
    """Let the process that waits for the others be the one that an interrupt ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def explain_violation(seed: int, what: str, probed: bool) -> dict[str, Any]:
    """Shrink a failing seed, and say how to see it again."""
    found = shrink(seed, probed=probed)
    command = f"colo-compare simulate --seed {seed} --trace"
    if found.violation:
        command += f" --only {','.join(map(str, found.kept)) or 'none'}{' --calm' if found.calm else ''}"
    return {
        "seed": seed,
        "violation": what,
        "events": [str(event) for event in found.scenario.events],
        "calm": found.calm,
        "shrunk_violation": found.violation,
        "command": command + (" --probe 1" if probed else ""),
    }


def simulate_seed(seed: int, only: tuple[int, ...] | None, *, calm: bool, trace: bool, probed: bool) -> int:
    """Run one seed and tell all about it; 1 for a violation."""
    scenario = replay(seed, only, calm)
    for event in scenario.events:
        print(f"{'wish ' if event.kind in WISHES else 'fault'}  {event}")
    result = run(scenario, tracing=trace, probed=probed)
    for line in result.trace:
        print(line)
    if result.violation:
        print(f"seed {seed}: VIOLATION: {result.violation}")
        return 1
    end = "the service was lost, by more than one death" if result.lost else "no violation"
    print(f"seed {seed}: {end}; {result.released} frames released in {result.seconds:.3f} virtual seconds")
    return 0


def simulate_many(first: int, seeds: int, *, jobs: int, probe: int, most: int, as_json: bool) -> int:
    """Run many seeds and tell what came of them; 1 if there is a violation."""
    began = time.monotonic()
    tally = run_many(first, seeds, jobs, probe, most)
    took = time.monotonic() - began
    told = [explain_violation(*violation) for violation in tally.violations[:_SHRUNK]]
    report: dict[str, Any] = {
        "first": first,
        "runs": tally.runs,
        "seconds": round(took, 3),
        "runs_per_second": round(tally.runs / took, 1),
        "virtual_seconds": round(tally.virtual, 1),
        "frames_released": tally.released,
        "probes": tally.probes,
        "service_lost": tally.lost,
        "faults": dict(sorted(tally.faults.items())),
        "violations": [{"seed": seed, "violation": what} for seed, what, _ in tally.violations],
        "explained": told,
    }
    print(json.dumps(report, indent=2) if as_json else "\n".join(_as_text(report)))
    return 1 if tally.violations else 0


def _as_text(report: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{report['runs']} runs from seed {report['first']} in {report['seconds']:.1f} s: "
        f"{report['runs_per_second']:.0f} runs/s, {report['virtual_seconds']:.0f} virtual seconds, "
        f"{report['frames_released']} frames released, {report['probes']} probes"
    )
    total = sum(report["faults"].values())
    yield f"{total} faults; the service was lost by more than one death {report['service_lost']} times"
    for name, count in report["faults"].items():
        yield f"  {count:8} {name}"
    yield f"{len(report['violations'])} violations"
    for found in report["explained"]:
        yield f"seed {found['seed']}: {found['violation']}"
        for event in found["events"]:
            yield f"    {event}"
        yield f"    {found['shrunk_violation']}"
        yield f"    {found['command']}"
    for found in report["violations"][len(report["explained"]) :]:
        yield f"seed {found['seed']}: {found['violation']}"
