"""In the place of QEMU's colo-compare object: the same frames, on the same unix sockets, to both."""

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from tests.bench import comparers, frames
from tests.bench.comparers import Comparer
from tests.bench.report import AT_LEAST, AT_MOST, Results, Row, interleaved, medians, ratio

TABLE = "drop-in"


@dataclass(frozen=True)
class Case:
    """So many frames of so many flows."""

    payload: int
    flows: int
    frames: int
    target: float

    @property
    def name(self) -> str:
        return f"{self.payload} B, {self.flows:,} flow{'s' if self.flows > 1 else ''}"


CASES = (
    Case(64, 1, 200_000, 10),
    Case(64, 1000, 200_000, 10),
    Case(64, 20_000, 200_000, 10),
    Case(1448, 1, 60_000, 5),
    Case(1448, 1000, 60_000, 5),
)


class Load:
    """The frames of a case, made once for all who get them."""

    def __init__(self, case: Case) -> None:
        self.flows = case.flows
        self.opening = frames.openings(0, case.flows)
        self.data = frames.data(np.arange(case.frames), case.flows, case.payload)
        self.parts = self.opening.tobytes(), self.data.tobytes()


class Faults:
    """Frames that came out wrong, over all runs of one comparer."""

    def __init__(self) -> None:
        self.lost = self.reordered = self.duplicated = self.altered = 0

    def judge(self, load: Load, heard: bytes) -> int:
        """Look at what came out; gives the number of frames."""
        arrived = frames.Arrived(memoryview(heard), load.flows, len(load.opening), load.data)
        self.lost += arrived.lost
        self.reordered += arrived.reordered
        self.duplicated += arrived.duplicated
        self.altered += arrived.altered
        return arrived.frames


def run(
    make: Callable[[Path], AbstractContextManager[Comparer]], load: Load, faults: Faults, patience: float
) -> float:
    """Feed one comparer; gives CPU microseconds for each frame that it released.

    What has not come `patience` seconds after the last byte is lost. QEMU does lose frames, so that each run
    of it waits in vain; the proxy gets the time that a busy machine may keep it from running.
    """
    with tempfile.TemporaryDirectory() as directory, make(Path(directory)) as comparer:
        fed, heard = comparer.say(*load.parts, patience=patience)
    return fed.cpu / max(faults.judge(load, heard), 1) * 1e6


def measure(results: Results, rounds: int, short: bool) -> None:
    """Measure the whole table."""
    cases = [replace(case, frames=case.frames // 4) for case in CASES[1::2]] if short else CASES
    why = comparers.qemu_missing()
    wrong = {"QEMU": Faults(), "proxy": Faults()}
    for case in cases:
        load = Load(case)
        runs: dict[str, Callable[[], float]] = {}
        if not why:
            runs["QEMU"] = partial(run, comparers.qemu, load, wrong["QEMU"], 2.0)
        runs["proxy"] = partial(run, comparers.proxy, load, wrong["proxy"], 20.0)
        found = interleaved(rounds, runs)
        against = None if why else ratio(found["QEMU"], found["proxy"])
        best = None if why else min(found["QEMU"]) / min(found["proxy"])
        results.add(
            Row(TABLE, case.name, "us of CPU a frame", medians(found), against, best, AT_LEAST, case.target)
        )
        for name, value in medians(found).items():
            if case.payload == 64:
                results.curves.setdefault(f"{name}, 64 B", []).append((case.flows, value))
    results.add(_faults(wrong))


def _faults(wrong: dict[str, Faults]) -> Row:
    counts = {name: vars(faults) for name, faults in wrong.items()}
    figures = {name: float(sum(each.values())) for name, each in counts.items()}
    case = "frames lost, reordered, duplicated or altered"
    return Row(TABLE, case, "", figures, figures["proxy"], None, AT_MOST, 0, notes=counts)
