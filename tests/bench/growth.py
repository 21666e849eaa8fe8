"""How the cost of a frame, and the memory, grow with the number of flows and with what is held."""

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from colo_compare.demo.proxy_process import Table
from tests.bench import comparers, frames
from tests.bench.comparers import Comparer, Fed
from tests.bench.process import resident_bytes
from tests.bench.report import AT_MOST, Results, Row, interleaved, medians, ratio

TABLE = "growth"
PAYLOAD = 64
CHUNK = 10_000  # flows that are opened before they say something: fewer than may be half open
PATIENT: Table = {"compare_timeout": "10m"}  # nothing here is a guest's fault
ROOMY: Table = {"max_held_frames": 1 << 20, "max_held_bytes": "1GiB", "max_flow_bytes": "1GiB", **PATIENT}


class Grown:
    """A comparer that knows so many established flows."""

    def __init__(self, comparer: Comparer, flows: int) -> None:
        self.flows = flows
        self._comparer = comparer
        self._said = 0  # data frames
        comparer.wait_idle()
        before = resident_bytes(comparer.pid)
        for first in range(0, flows, CHUNK):
            count = min(CHUNK, flows - first)
            # The flows of a chunk are numbered from 0 in `data`, so these are made one by one.
            self._feed(
                frames.openings(first, count).tobytes(), frames.firsts(first, count, PAYLOAD).tobytes()
            )
        comparer.wait_idle()
        self.bytes_per_flow = (resident_bytes(comparer.pid) - before) / flows

    def _feed(self, *parts: bytes) -> float:
        fed, _ = self._comparer.say(*parts, patience=30)
        expect_all(fed, *parts)
        return fed.cpu

    def cost(self, count: int) -> float:
        """Let flows in no order send so many frames; gives CPU microseconds for each."""
        numbers = np.arange(self.flows + self._said, self.flows + self._said + count)
        self._said += count
        return self._feed(frames.data(numbers, self.flows, PAYLOAD).tobytes()) / count * 1e6


def expect_all(fed: Fed, *parts: bytes) -> None:
    missing = sum(map(len, parts)) - fed.received
    if missing:
        raise RuntimeError(f"{missing} bytes did not come out")


def flows(results: Results, rounds: int, counts: tuple[int, ...], sent: int) -> None:
    """Measure the cost of a frame at several numbers of flows, and the memory of the largest."""
    with ExitStack() as stack:
        grown = []
        for count in counts:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            grown.append(Grown(stack.enter_context(comparers.proxy(directory, PATIENT)), count))
        runs = {f"{each.flows:,}": partial(each.cost, sent) for each in grown}
        found = interleaved(rounds, runs)
        few, many = (f"{count:,}" for count in (counts[0], counts[-1]))
        results.add(_row(f"{few} to {many} flows", found, many, few))
        results.curves["proxy, growing, 64 B"] = [
            (each.flows, value) for each, value in zip(grown, medians(found).values(), strict=True)
        ]
        last = grown[-1].bytes_per_flow
        case = f"an idle established flow, of {counts[-1]:,}"
        results.add(Row(TABLE, case, "bytes", {"proxy": last}, last, last, AT_MOST, 600))


def held(results: Results, rounds: int, waiting: int, sent: int) -> None:
    """Measure the cost of a frame behind a queue of so many that the secondary has not said yet."""
    parts = frames.openings(0, 1).tobytes(), frames.data(np.arange(sent), 1, PAYLOAD).tobytes()
    frame = 4 + frames.HEADERS + PAYLOAD

    def cost(lag: int) -> float:
        with (
            tempfile.TemporaryDirectory() as directory,
            comparers.proxy(Path(directory), ROOMY) as comparer,
        ):
            fed, _ = comparer.say(*parts, lag=lag, patience=30)
        expect_all(fed, *parts)
        return fed.cpu / sent * 1e6

    found = interleaved(rounds, {"none": partial(cost, 0), f"{waiting:,}": partial(cost, waiting * frame)})
    results.add(_row(f"{waiting:,} held frames in one flow", found, f"{waiting:,}", "none"))


def _row(case: str, found: dict[str, list[float]], many: str, few: str) -> Row:
    against, best = ratio(found[many], found[few]), min(found[many]) / min(found[few])
    return Row(TABLE, case, "us of CPU a frame", medians(found), against, best, AT_MOST, 2)


def measure(results: Results, rounds: int, short: bool) -> None:
    """Measure the whole table."""
    if short:
        flows(results, rounds, (10, 20_000), 40_000)
        held(results, rounds, 20_000, 60_000)
    else:
        flows(results, rounds, (10, 1000, 100_000, 1_000_000), 100_000)
        held(results, rounds, 100_000, 250_000)
