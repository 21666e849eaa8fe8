"""One turn of a workload, one failover: what is taken down of each."""

import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Self

from colo_compare.demo.qemu.image import Image
from tests.bench.colo_forms import Form
from tests.bench.colo_workloads import (
    ECHO,
    KEEP_ALIVE,
    LARGE,
    LINE,
    Workload,
    WrongBytesError,
    check,
    connect,
    content,
    read,
)

STILL = 4  # connections that say nothing while the primary dies
BEFORE_DEATH = LARGE // 8  # bytes of the download


@dataclass
class Cell:
    """Everything that was seen of one workload on one form."""

    latencies: list[float] = field(default_factory=list)  # seconds
    seconds: float = 0.0
    requests: Counter[str] = field(default_factory=Counter)  # of checkpoints, by cause
    pauses: list[float] = field(default_factory=list)  # seconds
    holds: Counter[float] = field(default_factory=Counter)  # frames that were held at most so long
    lost: int = 0  # connections
    wrong: int = 0  # answers
    broken: int = 0  # times that there was no pair any more after a turn
    failed: int = 0  # turns that came to nothing, through no fault of the guests' or the proxy's
    words: list[str] = field(default_factory=list)  # about those


def take_turn(form: Form, workload: Workload, seconds: float, cell: Cell) -> None:
    """Let the client ask one question after the other for so long, and add what was seen.

    What it costs to open the connection that they are asked on is no part of it.
    """
    requests, holds, began = form.requests(), form.holds(), time.time()
    asked = 0
    start = time.monotonic()
    try:
        with workload.open(form.lab) as once:
            requests, holds, began = form.requests(), form.holds(), time.time()
            start = time.monotonic()
            end = start + seconds
            while time.monotonic() < end and asked < workload.longest:
                at = time.monotonic()
                once()
                cell.latencies.append(time.monotonic() - at)
                asked += 1
    except WrongBytesError as error:
        cell.wrong += 1
        cell.words.append(str(error))
    except OSError as error:
        cell.lost += 1
        cell.words.append(f"{type(error).__name__}: {error}")
    cell.seconds += time.monotonic() - start
    cell.requests += Counter(form.requests()) - Counter(requests)
    cell.holds += Counter(form.holds()) - Counter(holds)
    cell.pauses += form.pauses.between(began, time.time())


class Standing:
    """A form that is started again for the next turn when its pair is lost, or a turn came to nothing.

    Twenty minutes of figures must not go with one of them, so whatever goes wrong is counted, and told.
    """

    def __init__(self, kind: type[Form], image: Image, state: Path) -> None:
        self.kind = kind
        self._image = image
        self._state = state
        self._form: Form | None = kind(image, state)

    def take_turn(self, workload: Workload, seconds: float, cell: Cell) -> None:
        whole = False
        try:
            if self._form is None:
                self._form = self.kind(self._image, self._state)
            take_turn(self._form, workload, seconds, cell)
            whole = self._form.is_whole()
        except Exception as error:
            cell.failed += 1
            cell.words.append(f"{type(error).__name__}: {error}")
        else:
            if not whole:
                cell.broken += 1
                cell.words.append("there is no pair any more")
        if not whole:
            self.close()

    def close(self) -> None:
        form, self._form = self._form, None
        if form is not None:
            form.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass
class Failovers:
    """All rounds of one form."""

    gaps: list[float] = field(default_factory=list)  # seconds in which the client got nothing
    connections: int = 0
    lost: int = 0
    wrong: int = 0
    failed: int = 0  # rounds that came to nothing
    words: list[str] = field(default_factory=list)


class Watched(threading.Thread):
    """A download that notes when bytes come."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.arrivals: list[float] = []
        self.error: Exception | None = None
        self.early = threading.Event()  # some of it has come
        self._form = form

    def run(self) -> None:
        try:
            self._download()
        except Exception as error:  # for the thread that started this one
            self.error = error
        finally:
            self.early.set()

    def _download(self) -> None:
        with connect(self._form.lab, KEEP_ALIVE) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            connection.sendall(b"GET /bytes/%d HTTP/1.1\r\n\r\n" % LARGE)
            received = bytearray()
            while len(received) < LARGE + received.find(b"\r\n\r\n") + 4:
                data = connection.recv(1 << 16)
                if not data:
                    raise ConnectionError(f"the download ended after {len(received)} bytes")
                self.arrivals.append(time.monotonic())
                received += data
                if len(received) > BEFORE_DEATH:
                    self.early.set()
        check(bytes(received).partition(b"\r\n\r\n")[2], content(LARGE))


def fail_over(kind: type[Form], image: Image, state: Path, seen: Failovers) -> None:
    """Start a pair, kill its primary in the middle of a download, and look after every connection.

    Whatever it raises, the round came to nothing, and has left nothing in `seen`.
    """
    lost: list[str] = []
    wrong = 0
    gaps: list[float] = []
    with kind(image, state) as form:
        still = [connect(form.lab, ECHO) for _ in range(STILL)]
        for connection in still:
            connection.sendall(LINE)
            check(read(connection, len(LINE)), LINE)
        download = Watched(form)
        download.start()
        download.early.wait()
        died = time.monotonic()
        form.lose_primary()
        download.join()
        if isinstance(download.error, WrongBytesError):
            wrong += 1
        elif download.error is not None:
            lost.append(str(download.error))
        else:
            gaps.append(longest_gap(download.arrivals, died))
        for connection in still:
            try:
                connection.sendall(LINE)
                check(read(connection, len(LINE)), LINE)
            except OSError as error:
                lost.append(str(error))
            except WrongBytesError:
                wrong += 1
            connection.close()
    seen.gaps += gaps
    seen.connections += 1 + STILL
    seen.lost += len(lost)
    seen.wrong += wrong
    seen.words += lost


def try_failover(kind: type[Form], image: Image, state: Path, seen: Failovers) -> None:
    """Make a round of failover, or note that it came to nothing."""
    try:
        fail_over(kind, image, state, seen)
    except Exception as error:
        seen.failed += 1
        seen.words.append(f"{type(error).__name__}: {error}")


def longest_gap(arrivals: list[float], died: float) -> float:
    """Give the longest time without a byte that ended after the death: the one in which nobody spoke.

    Raises ValueError where no byte came after it.
    """
    gaps = [after - before for before, after in pairwise(arrivals) if after > died]
    if not gaps:
        raise ValueError("the download was over before the primary was dead")
    return max(gaps)
