"""What a checkpoint of the memory backend costs: pause against written MiB, channels, and sending ahead.

    python -m tests.bench.memory_pause [--memory 1024] [--dirty 0,1,16,64,256] [--rounds 5] [--json FILE]

Guests, receiver and backend are four processes on this machine, on unix sockets or on TCP over loopback. As
limits, the same run measures a copy of the same bytes in memory, and the bare socket with the same buffers.
"""

import argparse
import json
import mmap
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from colo_compare.checkpoint.contract import Figures
from colo_compare.checkpoint.memory.backend import MemoryCheckpointer
from colo_compare.checkpoint.memory.options import MemoryOptions
from colo_compare.core.actions import CheckpointRequest
from colo_compare.quantities import Duration, Size

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
PAGES_PER_MIB = MIB // 4096


class Bench:
    """Takes the reports of the backend."""

    def __init__(self) -> None:
        self.figures = Figures()

    async def begun(self) -> int:
        raise AssertionError("nobody begins here")

    async def paused(self, epoch: int) -> None:
        await trio.lowlevel.checkpoint()

    async def loaded(self, epoch: int) -> None:
        await trio.lowlevel.checkpoint()

    async def committed(self, epoch: int, figures: Figures) -> None:
        self.figures = figures
        await trio.lowlevel.checkpoint()

    async def failed(self, epoch: int, detail: str, *, secondary_intact: bool) -> None:
        raise RuntimeError(detail)

    async def guest_lost(self, side: int, detail: str) -> None:
        raise RuntimeError(detail)


class Process:
    """A guest that writes when it is told to, or a receiver."""

    def __init__(self, module: str, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def processes(memory: int, endpoint: str, directory: str) -> Iterator[tuple[Process, Process, str]]:
    started: list[Process] = []
    try:
        for name in ("a", "b"):
            guest = Process(
                "tests.checkpoint.memory.scribbler", f"{directory}/{name}.sock", str(memory * MIB)
            )
            started.append(guest)
            assert guest.process.stdout is not None
            guest.process.stdout.readline()
        started.append(
            Process(
                "colo_compare.checkpoint.memory", "--guest", f"{directory}/b.sock", "--listen", endpoint,
                "--timeout", "30s",
            )
        )  # fmt: skip
        yield started[0], started[2], f"{directory}/a.sock"
    finally:
        for process in started:
            process.stop()


def processor_time(other: subprocess.Popen[Any]) -> float:
    """Give the seconds of processor time that both ends have used: this process, and the other one."""
    fields = Path(f"/proc/{other.pid}/schedstat").read_text().split()
    return time.process_time() + int(fields[0]) / 1e9


async def measure(
    options: MemoryOptions,
    guest: Process,
    receiver: Process,
    bare: "BareSocket",
    cases: list[int],
    rounds: int,
    rate: int,
) -> list[Any]:
    """Give rows for each number of written MiB; with `rate` (MiB/s) written steadily between checkpoints.

    The bare socket has its turn before each checkpoint, so that both see the same load of the machine.
    """
    bench = Bench()
    backend = MemoryCheckpointer(options)
    rows: list[Any] = []
    epoch = 0
    used = 0.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.run, bench)
        while not backend.ready:  # noqa: ASYNC110 - the contract has no event for it
            await trio.sleep(0.01)

        async def checkpoint() -> Figures:
            nonlocal epoch, used
            epoch += 1
            before = processor_time(receiver.process)
            await backend.request(CheckpointRequest(epoch, ("payload",), ""))
            used = processor_time(receiver.process) - before
            return bench.figures

        await checkpoint()
        for dirty in cases:
            found = []
            limits = []
            times: list[float] = []
            bare_times: list[float] = []
            for turn in range(rounds):
                before = processor_time(bare.process)
                limits.append(bare.rate(max(dirty, 1)))
                bare_times.append(processor_time(bare.process) - before)
                await write(guest, dirty, turn + 1, rate)
                found.append(await checkpoint())
                times.append(used)
            rows.append(summary(dirty, found, limits) | processor(dirty, times, bare_times))
        nursery.cancel_scope.cancel()
    return rows


async def write(guest: Process, dirty: int, value: int, rate: int) -> None:
    """Write pages: all at once, or a part of them every 50 ms."""
    if not rate:
        guest.tell(f"write 0 {dirty * PAGES_PER_MIB} {value}" if dirty else "idle")
        return
    step = max(rate // 20, 1)
    for first in range(0, dirty, step):
        guest.tell(f"write {first * PAGES_PER_MIB} {min(step, dirty - first) * PAGES_PER_MIB} {value}")
        await trio.sleep(0.05)


def processor(dirty: int, times: list[float], bare_times: list[float]) -> dict[str, float]:
    """Give the processor time of both ends, which other work on the machine changes less than a pause."""
    best, bare = min(times) / max(dirty, 1), min(bare_times) / max(dirty, 1)
    return {
        "processor_ms_per_mib": round(best * 1e3, 2),
        "socket_processor_ms_per_mib": round(bare * 1e3, 2),
        "of_processor": round(bare / best, 2),
    }


def summary(dirty: int, found: list[Figures], limits: list[float]) -> dict[str, float]:
    pauses = [figures.pause or 0.0 for figures in found]
    sent = statistics.median(figures.bytes or 0 for figures in found)
    before = statistics.median(int((figures.detail or {}).get("bytes_before", 0)) for figures in found)
    rates = [(figures.bytes or 0) / MIB / pause for figures, pause in zip(found, pauses, strict=True)]
    return {
        "dirty_mib": dirty,
        "pause_ms": round(statistics.median(pauses) * 1e3, 1),
        "best_ms": round(min(pauses) * 1e3, 1),
        "pause_mib": round(sent / MIB, 1),
        "before_mib": round(before / MIB, 1),
        "mib_per_s": round(statistics.median(rates)),
        "socket_mib_per_s": round(statistics.median(limits)),
        "of_socket": round(
            statistics.median(one / limit for one, limit in zip(rates, limits, strict=True)), 2
        ),
    }


def copy_rate(size: int) -> float:
    """Give MiB/s of a copy from one mapping to another, both touched before."""
    source, target = mmap.mmap(-1, size * MIB), mmap.mmap(-1, size * MIB)
    with memoryview(source) as start, memoryview(target) as end:
        end[:] = start
        rates = []
        for _ in range(5):
            begin = time.perf_counter()
            end[:] = start
            rates.append(size / (time.perf_counter() - begin))
    return max(rates)


READER = """
import socket, sys, mmap
reader = socket.socket(getattr(socket, sys.argv[1]))
reader.connect(sys.argv[2] if sys.argv[1] == "AF_UNIX" else ("127.0.0.1", int(sys.argv[2])))
memory = memoryview(mmap.mmap(-1, int(sys.argv[3])))
memory[:] = bytes(len(memory))
reader.send(b"x")
while size := int.from_bytes(reader.recv(8), "big"):
    reader.send(b"x")
    at = 0
    while at < size:
        at += reader.recv_into(memory[at : min(at + (1 << 20), size)])
    reader.send(b"x")
"""


class BareSocket:
    """What the kernel gives without us: a mebibyte a write, read into memory by another process."""

    def __init__(self, kind: str, size: int) -> None:
        self.data = memoryview(mmap.mmap(-1, size * MIB))
        self.data[:] = b"d" * len(self.data)
        with tempfile.TemporaryDirectory() as directory:
            if kind == "unix":
                listener = socket.socket(socket.AF_UNIX)
                listener.bind(f"{directory}/s")
                listener.listen()
                words = ["AF_UNIX", f"{directory}/s"]
            else:
                listener = socket.create_server(("127.0.0.1", 0))
                words = ["AF_INET", str(listener.getsockname()[1])]
            self.process = subprocess.Popen([sys.executable, "-c", READER, *words, str(size * MIB)])
            self.peer, _ = listener.accept()
            listener.close()
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.peer.recv(1)

    def rate(self, size: int) -> float:
        """Give MiB/s for so many MiB, from the first byte until the other end says that it has the last."""
        self.peer.sendall((size * MIB).to_bytes(8, "big"))
        self.peer.recv(1)
        begin = time.perf_counter()
        for at in range(0, size * MIB, MIB):
            self.peer.sendall(self.data[at : at + MIB])
        self.peer.recv(1)
        return size / (time.perf_counter() - begin)

    def close(self) -> None:
        self.peer.close()
        self.process.wait()


def run_case(kind: str, memory: int, cases: list[int], rounds: int, rate: int, **options: Any) -> list[Any]:
    with tempfile.TemporaryDirectory() as directory:
        endpoint = f"unix:{directory}/receiver" if kind == "unix" else f"tcp:127.0.0.1:{free_port()}"
        with processes(memory, endpoint, directory) as (guest, receiver, path):
            settings = MemoryOptions(
                primary=path,
                secondary=endpoint,
                timeout=Duration(30),
                reconnect_timeout=Duration(30),
                **options,
            )
            wait_for(endpoint)
            bare = BareSocket(kind, max(*cases, 1))
            try:
                return trio.run(measure, settings, guest, receiver, bare, cases, rounds, rate)
            finally:
                bare.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(endpoint: str) -> None:
    """Wait until the receiver listens."""
    kind, _, rest = endpoint.partition(":")
    address: Any = rest if kind == "unix" else ("127.0.0.1", int(rest.rpartition(":")[2]))
    family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
    for _ in range(200):
        with socket.socket(family) as probe:
            if probe.connect_ex(address) == 0:
                return
        threading.Event().wait(0.05)
    raise RuntimeError("the receiver does not start")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB")
    parser.add_argument("--dirty", default="0,1,16,64,256", metavar="MIB,...")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    cases = [int(number) for number in arguments.dirty.split(",")]
    size = max(*cases, 16)
    copied = round(copy_rate(size))
    print(f"a copy in memory: {copied} MiB/s")
    results: list[Any] = []

    def show(title: str, rows: list[Any]) -> None:
        results.append({"case": title, "rows": rows})
        print(f"\n{title}")
        print(
            "  written MiB  pause ms (best)  in pause MiB  before MiB  MiB/s in pause  bare socket  of it"
            "  processor ms/MiB  bare  of it"
        )
        for row in rows:
            print(
                f"  {row['dirty_mib']:11} {row['pause_ms']:8} ({row['best_ms']:5}) {row['pause_mib']:13}"
                f" {row['before_mib']:11} {row['mib_per_s']:15} {row['socket_mib_per_s']:12}"
                f" {row['of_socket']:6.0%} {row['processor_ms_per_mib']:17}"
                f" {row['socket_processor_ms_per_mib']:5} {row['of_processor']:6.0%}",
                flush=True,
            )

    none = Size(0)
    for kind in ("unix", "tcp"):
        for channels in (1, 2, 4):
            for checksums in (True, False):
                title = f"{kind}, {channels} channels, page checksums {'on' if checksums else 'off'}"
                rows = run_case(
                    kind, arguments.memory, cases, arguments.rounds, 0,
                    channels=channels, presend_rate=none, page_checksums=checksums,
                )  # fmt: skip
                show(title, rows)
    for rate in (none, Size(256 * MIB)):
        title = f"unix, 1 channel, 64 MiB written at 100 MiB/s, presend_rate {rate}"
        rows = run_case("unix", arguments.memory, [64], arguments.rounds, 100, presend_rate=rate)
        show(title, rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"copy_mib_per_s": copied, "cases": results}, indent=2))


if __name__ == "__main__":
    main()
