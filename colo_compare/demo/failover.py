"""The first act: a download outlives its server."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from colo_compare.demo import content
from colo_compare.demo.client import Connection, Download
from colo_compare.demo.lab import CLIENT4, GUEST4, Lab
from colo_compare.demo.screen import Screen

MIB: Final = 1 << 20
TICK: Final = 0.1  # seconds between two looks at the proxy
LONGEST_WAIT: Final = 2.0  # seconds that the client may have to wait when its server dies
BAR: Final = 20  # columns

DRAWING: Final = f"""\
                            .--- guest A, {GUEST4} (primary)
client {CLIENT4} --- proxy
                            '--- guest B, {GUEST4} (secondary), the same MAC
"""


def show_failover(screen: Screen, size: int) -> None:
    """Download `size` bytes, kill the primary when half of them have come, and see what the client got."""
    screen.title("1. A download outlives its server")
    with Lab() as lab:
        lab.start(
            {
                "proxy": {"mode": "protect"},
                "checkpointer": {"backend": "null", "assume_deterministic": True},
            }
        )
        screen.show(DRAWING)
        with ThreadPoolExecutor(1) as thread, Connection(lab.client, GUEST4) as connection:
            screen.say(
                f"The client downloads {_mib(size)} from {GUEST4}, from its TCP port {connection.port}. "
                "The proxy releases what guest A says once guest B has said the same."
            )
            watched = _Watched(screen, lab, size)
            future = thread.submit(connection.download, size, watched.note)
            watched.until(future, lambda: watched.received >= size // 2)
            lab.guests[0].kill()
            screen.say("KILLED guest A: its link is cut, its processes are dead.")
            watched.until(future, future.done)
            download = future.result()
        screen.say(
            f"The download is complete after {download.seconds:.1f} s ({size / MIB / download.seconds:.0f} "
            f"MiB/s). The client's longest wait for a byte was {download.stall * 1000:.0f} ms."
        )
        _judge(screen, download, lab.proxy.status())


class _Watched:
    """A download that another thread does, on the screen."""

    def __init__(self, screen: Screen, lab: Lab, size: int) -> None:
        self.received = 0
        self._screen = screen
        self._lab = lab
        self._size = size
        self._quarters = 0  # shown so far, as lines that stay

    def note(self, download: Download) -> None:
        """Note how far it has come."""
        self.received = download.received

    def until(self, future: "Future[Download]", reached: Callable[[], bool]) -> None:
        """Show its progress until it has come so far, or ended."""
        shown = 0.0
        while not reached() and not future.done():
            if time.monotonic() >= shown + TICK:
                shown = time.monotonic()
                self._look()
            time.sleep(TICK / 20)
        self._look()

    def _look(self) -> None:
        status = self._lab.proxy.status()
        counters = status["counters"]
        done = self.received / self._size
        line = (
            f"{'#' * int(done * BAR):.<{BAR}} {done:4.0%}  frames: "
            f"{counters['secondary']['compared']} compared, {sum(counters['released'].values())} released, "
            f"{status['held']['frames']} held"
        )
        if int(done * 4) > self._quarters:
            self._quarters = int(done * 4)
            self._screen.show(line)
        else:
            self._screen.move(line)


def _judge(screen: Screen, download: Download, status: dict[str, Any]) -> None:
    counters = status["counters"]
    right = content.digest(download.size)
    screen.say(f"SHA-256 {download.sha256}")
    screen.check("SHA-256", f"{download.sha256[:24]}..., as it must be", download.sha256 == right)
    first, last = download.ports
    screen.check("TCP connection", f"one, from port {first}", first == last)
    screen.check("longest wait", f"{download.stall * 1000:.0f} ms", download.stall < LONGEST_WAIT)
    screen.check("took over", f"guest B, mode {status['mode']}", counters["promotions"] == 1)
    compared = counters["compared_bytes"]
    screen.check("compared", f"{_mib(compared)} until then", compared > download.size // 4)
    diverged = sum(counters["divergences"].values())
    screen.check("divergences", str(diverged), diverged == 0)
    received = counters["received"]["primary"]
    released, discarded = sum(counters["released"].values()), sum(counters["discarded"].values())
    held = status["held"]["frames"]
    screen.check(
        "frames",
        f"{received} = {released} released + {held} held + {discarded} discarded",
        received == released + held + discarded,
    )


def _mib(size: int) -> str:
    return f"{size / MIB:.0f} MiB"
