"""The default demo: a service on embedded guests that differ, and that die one after the other."""

import base64
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from colo_compare.demo import content
from colo_compare.demo.client import Download
from colo_compare.demo.embedded import EmbeddedGuest, EmbeddedLab
from colo_compare.demo.fetch import Fetch
from colo_compare.demo.lab import CLIENT4, GUEST4
from colo_compare.demo.screen import Screen
from colo_compare.demo.visits import Visits
from colo_compare.errors import ControlError

MIB: Final = 1 << 20
TICK: Final = 0.05  # seconds between two looks at the proxy
LIMIT: Final = 20.0  # seconds for what must happen
LONGEST_WAIT: Final = 2.0  # seconds that the client may have to wait when its server dies
EVERY: Final = 20  # HTTP answers, of which one has a random number
BAR: Final = 16  # columns

DRAWING: Final = f"""\
                            .--- guest A, {GUEST4} (primary)
client {CLIENT4} --- proxy ---- guest B, {GUEST4} (secondary), the same MAC
                            '--- guest C, {GUEST4} (spare)
"""


def show_succession(screen: Screen, size: int) -> None:
    """Show a divergence, then a download of `size` bytes that outlives two primaries."""
    with EmbeddedLab() as lab:
        story = _Story(screen, lab)
        story.protect_first()
        with Visits(lab.client) as visits:
            story.differ(visits)
            with Fetch(lab.client, size) as fetch:
                story.outlive(fetch, visits)
        story.judge_proxy()


class _Checkpoints:
    """What the checkpoints cost that were seen: one look finds the last one only."""

    def __init__(self) -> None:
        self._figures: dict[int, dict[str, Any]] = {}  # by epoch

    def note(self, status: dict[str, Any]) -> None:
        """Look at the proxy's status."""
        last = status["checkpoint"]["last"]
        if last.get("reasons") and last["reasons"] != ["startup"]:
            self._figures[last["epoch"]] = status["checkpoint"]["figures"]

    def describe(self) -> str:
        """Give the medians, and the longest pause."""
        pages, size, pause = (
            statistics.median(figures[key] for figures in self._figures.values())
            for key in ("pages", "bytes", "pause")
        )
        return (
            f"{pages:.0f} pages, {size / 1024:.0f} KiB in {pause * 1000:.1f} ms (median); "
            f"longest {self.longest() * 1000:.0f} ms"
        )

    def longest(self) -> float:
        """Give the longest pause, in seconds."""
        pauses: list[float] = [figures["pause"] for figures in self._figures.values()]
        return max(pauses)


class _Story:
    """What happens, in order."""

    def __init__(self, screen: Screen, lab: EmbeddedLab) -> None:
        self._screen = screen
        self._lab = lab
        self._checkpoints = _Checkpoints()
        self._spare = lab.add_guest("spare")
        self._status: dict[str, Any] = {}

    # 1

    def protect_first(self) -> None:
        """Start everything, and wait until guest B can take over."""
        screen = self._screen
        screen.title("1. Two guests become one service")
        screen.show(DRAWING)
        noise = [_noise(seed) for seed in (1, 2, 3)]
        self._spare.launch(noise[2])
        self._lab.start(noise=noise[:2])
        self._until(lambda: bool(self._status["protected"]), "the pair is not protected")
        screen.say(
            f"Guest B is what guest A is, and runs: {_copied(self._status)}. From now on it can take over."
        )

    # 2

    def differ(self, visits: Visits) -> None:
        """Count until an answer has a random number."""
        screen = self._screen
        screen.title("2. They differ, and the client cannot tell")
        told = ""
        while not told:
            told = visits.count()
        record = self._lab.proxy.explain()
        said = {side: _random_number(record[side]["context"]) for side in ("primary", "secondary")}
        screen.say(
            f"The client counts on a counter of theirs. One answer in {EVERY} has a random number, such as "
            f"number {visits.counted}:"
        )
        screen.show(f"  guest A says   X-Random: {said['primary']}")
        screen.show(f"  guest B says   X-Random: {said['secondary']}")
        screen.show(f"  client hears   X-Random: {told}")
        self._look()
        waited = record["checkpoint"]["after"] * 1000
        screen.say(
            f"It was held back for {waited:.1f} ms, until guest B was what guest A is again: "
            f"{_cost(self._status['checkpoint']['figures'])}."
        )
        held = told == said["primary"] != said["secondary"] and record["checkpoint"]["outcome"] == "committed"
        screen.check("divergence", f"{record['cause']['field']}: held until a checkpoint committed", held)

    # 3

    def outlive(self, fetch: Fetch, visits: Visits) -> None:
        """Kill the primary twice while a download runs."""
        screen, lab = self._screen, self._lab
        size = fetch.seen.size
        visits.go_on()
        screen.title("3. A download outlives two servers")
        screen.say(
            f"{fetch.program} downloads {_mib(size)} from {GUEST4}; the counting goes on, and so do the "
            "checkpoints."
        )
        self._follow(fetch, lambda: fetch.seen.received >= size // 4)
        fetch.rest_at(size // 2)  # on a fast machine all of it would be there before guest C is
        self._kill(lab.guests[0], lab.guests[1], fetch)
        self._reprotect(fetch)
        fetch.go_on()
        self._follow(fetch, lambda: fetch.seen.received >= size * 2 // 3)
        at = fetch.seen.received
        self._kill(lab.guests[1], self._spare, fetch)
        self._follow(fetch, fetch.over.is_set)
        visits.stop()
        seen = fetch.seen
        screen.say(
            f"The download is complete after {seen.seconds:.1f} s ({seen.received / MIB / seen.seconds:.0f} "
            f"MiB/s), and the counter is at {visits.counted}."
        )
        screen.show(f"SHA-256 {seen.sha256}")
        self._judge_client(fetch, visits, at)

    def _kill(self, victim: EmbeddedGuest, heir: EmbeddedGuest, fetch: Fetch) -> None:
        before = self._status["counters"]["promotions"]
        at = fetch.seen.received
        killed = time.monotonic()
        victim.kill()
        self._screen.say(
            f"KILLED guest {victim.name} after {_mib(at)}: its cable is cut, its processes are dead."
        )
        self._until(lambda: self._status["counters"]["promotions"] > before, "nobody took over")
        self._follow(fetch, lambda: fetch.seen.received > at)
        self._screen.say(
            f"Guest {heir.name} took over. After {(time.monotonic() - killed) * 1000:.0f} ms the client had "
            f"its next bytes."
        )

    def _reprotect(self, fetch: Fetch) -> None:
        spare = self._spare
        spare.wait()
        spare.start_receiver()
        failures: list[Exception] = []

        def protect() -> None:
            try:
                self._lab.proxy.protect("packet:spare", spare.endpoint)
            except ControlError as error:
                failures.append(error)

        began = time.monotonic()
        thread = threading.Thread(target=protect)
        thread.start()
        self._follow(fetch, lambda: not thread.is_alive())
        thread.join()
        if failures:
            raise failures[0]
        self._look()
        self._screen.say(
            f"`colo-compare protect` gave it guest {spare.name} as a secondary within "
            f"{time.monotonic() - began:.1f} s, while it served: {_copied(self._status)}."
        )

    # What it looked like

    def _look(self) -> None:
        self._status = self._lab.proxy.status()
        self._checkpoints.note(self._status)

    def _until(self, reached: Callable[[], bool], otherwise: str) -> None:
        end = time.monotonic() + LIMIT
        self._look()
        while not reached():
            if time.monotonic() > end:
                raise TimeoutError(otherwise)
            time.sleep(TICK / 10)
            self._look()

    def _follow(self, fetch: Fetch, reached: Callable[[], bool]) -> None:
        """Show the progress until it has come so far, or ended."""
        shown = 0.0
        seen = fetch.seen
        while not reached() and not fetch.over.is_set():
            if time.monotonic() >= shown + TICK:
                shown = time.monotonic()
                self._look()
                self._screen.move(_progress(seen, self._status))
            time.sleep(TICK / 10)

    def _judge_client(self, fetch: Fetch, visits: Visits, second: int) -> None:
        screen, seen = self._screen, fetch.seen
        right = seen.sha256 == content.digest(seen.size)
        screen.check("SHA-256", fetch.failure or f"{seen.sha256[:24]}..., as it must be", right)
        first, last = seen.ports
        screen.check("TCP connection", f"one, from port {first}", first == last > 0)
        screen.check("second death", f"after {_mib(second)} of {_mib(seen.size)}", second < seen.size)
        screen.check("longest wait", f"{seen.stall * 1000:.0f} ms", 0 < seen.stall < LONGEST_WAIT)
        screen.check(
            "counter",
            visits.failure or f"{visits.counted}: each answer was the one before and one",
            not visits.failure and visits.counted > EVERY,
        )

    def judge_proxy(self) -> None:
        """Look at the proxy's own account at the end."""
        screen = self._screen
        self._look()
        counters = self._status["counters"]
        diverged = sum(counters["divergences"].values())
        committed = counters["checkpoints"]["committed"]
        screen.check(
            "divergences", f"{diverged}, and {committed} checkpoints", diverged > 0 and committed > 2
        )
        pauses = self._checkpoints
        screen.check("a checkpoint", pauses.describe(), pauses.longest() < LONGEST_WAIT)
        screen.check("took over", "guest B, then guest C", counters["promotions"] == 2)
        received = counters["received"]["primary"]
        released, discarded = sum(counters["released"].values()), sum(counters["discarded"].values())
        held = self._status["held"]["frames"]
        screen.check(
            "frames",
            f"{received} = {released} released + {held} held + {discarded} discarded",
            received == released + held + discarded,
        )


def _progress(seen: Download, status: dict[str, Any]) -> str:
    done = seen.received / seen.size
    rate = seen.received / MIB / (seen.seconds or 1.0)
    committed = status["counters"]["checkpoints"]["committed"]
    figures = status["checkpoint"]["figures"]
    return (
        f"{'#' * int(done * BAR):.<{BAR}} {done:4.0%} {rate:4.0f} MiB/s  {status['mode']:<7}  "
        f"checkpoint {committed}: {figures['pages']} pages, {figures['pause'] * 1000:.0f} ms"
    )


def _noise(seed: int) -> Sequence[str]:
    return ("--noise-seed", str(seed), "--random-every", str(EVERY))


def _random_number(context: str) -> str:
    """Find what a guest said, in the bytes round the place where the two differ."""
    head = base64.b64decode(context).decode("latin-1")
    return head.partition("X-Random: ")[2].partition("\r")[0]


def _copied(status: dict[str, Any]) -> str:
    """Say what a first checkpoint cost."""
    figures = status["checkpoint"]["figures"]
    pages, sent = (figures[key] + figures[f"{key}_before"] for key in ("pages", "bytes"))
    return (
        f"{pages} pages of memory, {sent / 1024:.0f} KiB as most are empty, were copied; "
        f"{figures['pages']} of them in a pause of {figures['pause'] * 1000:.1f} ms"
    )


def _cost(figures: dict[str, Any]) -> str:
    size, pause = figures["bytes"] / 1024, figures["pause"] * 1000
    return f"{figures['pages']} pages, {size:.0f} KiB in a pause of {pause:.1f} ms"


def _mib(size: int) -> str:
    return f"{size / MIB:.0f} MiB"
