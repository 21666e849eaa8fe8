"""What a checkpoint costs in QEMU's own COLO and in the memory backend: pause against written MiB.

    python -m tests.bench.memory_beside_qemu [--dirty 0,1,4,16] [--rounds 5]

Two Linux guests of 128 MiB under TCG, and two processes with as much memory, all of them up all the time;
for each number of MiB the two kinds take turns. A page counts as written when one byte of it was.
"""

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from http.client import HTTPConnection
from typing import Any

import trio

from colo_compare.checkpoint.memory.backend import MemoryCheckpointer
from colo_compare.checkpoint.memory.options import MemoryOptions
from colo_compare.core.actions import CheckpointRequest
from colo_compare.demo.qemu.image import image
from colo_compare.demo.qemu.lab import GUEST4, Lab
from colo_compare.quantities import Duration, Size
from tests.bench.memory_pause import Bench, Process, processes, wait_for

MEMORY = 128  # MiB, as the guests of the lab have
PORT = 8080
PAGES_PER_MIB = 256


class Qemu:
    """A pair that QEMU's COLO replicates."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._http = HTTPConnection(GUEST4, PORT, timeout=60)
        lab.client.call(self._http.connect)

    def pause(self, dirty: int) -> float:
        """Write so much, make a checkpoint, and give its pause in seconds."""
        self._lab.checkpoint()  # what else was written
        if dirty:
            self._http.request("POST", f"/scribble/{dirty}")
            self._http.getresponse().read()
        self._lab.checkpoint()
        figures: dict[str, Any] = self._lab.proxy.status()["checkpoint"]["figures"]
        return float(figures["pause"])


class Memory:
    """A pair that the memory backend replicates."""

    def __init__(self, guest: Process, backend: MemoryCheckpointer, reports: Bench) -> None:
        self._guest = guest
        self._backend = backend
        self._reports = reports
        self._epoch = 0

    async def pause(self, dirty: int) -> float:
        """Write so much, make a checkpoint, and give its pause in seconds."""
        if dirty:
            self._guest.tell(f"scribble 0 {dirty * PAGES_PER_MIB} 1 {self._epoch % 250 + 1}")
        self._epoch += 1
        await self._backend.request(CheckpointRequest(self._epoch, ("payload",), ""))
        return self._reports.figures.pause or 0.0


async def compare(qemu: Qemu, guest: Process, options: MemoryOptions, cases: list[int], rounds: int) -> None:
    reports = Bench()
    backend = MemoryCheckpointer(options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.run, reports)
        while not backend.ready:  # noqa: ASYNC110 - the contract has no event for it
            await trio.sleep(0.01)
        memory = Memory(guest, backend, reports)
        await memory.pause(max(cases))  # what is written for the first time
        print("written MiB   QEMU's COLO, ms   memory backend, ms   (medians; best)")
        for dirty in cases:
            theirs, ours = [], []
            for _ in range(rounds):
                theirs.append(await trio.to_thread.run_sync(qemu.pause, dirty))
                ours.append(await memory.pause(dirty))
            cells = [
                f"{statistics.median(found) * 1e3:.1f} ({min(found) * 1e3:.1f})" for found in (theirs, ours)
            ]
            print(f"{dirty:11} {cells[0]:>17} {cells[1]:>20}", flush=True)
        nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dirty", default="0,1,4,16", metavar="MIB,...")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cases = [int(number) for number in arguments.dirty.split(",")]
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(image()))
        lab.boot()
        lab.protect()
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        endpoint = f"unix:{directory}/receiver"
        guest, _, path = stack.enter_context(processes(MEMORY, endpoint, directory))
        wait_for(endpoint)
        options = MemoryOptions(primary=path, secondary=endpoint, timeout=Duration(30), presend_rate=Size(0))
        trio.run(compare, Qemu(lab), guest, options, cases, arguments.rounds)


if __name__ == "__main__":
    main()
