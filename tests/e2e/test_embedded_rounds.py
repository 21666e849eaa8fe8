"""A service that loses one guest after the other, and gets a new one each time; one seed, one story."""

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from colo_compare.checkpoint.memory import messages
from colo_compare.demo.embedded import EmbeddedGuest, EmbeddedLab
from colo_compare.errors import ControlRefused
from tests.e2e.oracle import NOISE, PATIENCE, Crowd, all_kinds
from tests.e2e.relay import Relay
from tests.e2e.verdict import settled

ROUNDS = 10
MOMENTS = (
    messages.PAGES, messages.REQUEST, messages.REPLY, messages.DEVICE, messages.SYNC, messages.RECEIVED,
    messages.APPLY, messages.APPLIED, messages.RESUME, messages.RESUMED,
)  # fmt: skip


class Service:
    """A pair, and what may happen to it."""

    def __init__(self, lab: EmbeddedLab, seed: int, stack: ExitStack) -> None:
        self.lab = lab
        self.random = random.Random(seed)
        self.stack = stack
        self.primary, self.secondary = lab.guests
        self.relay = self._relay(self.secondary)
        self.promotions = 0
        self.told: list[str] = []
        hasty = {"timeout": "1s", "reconnect_timeout": "1s"}  # so that a loss is found soon
        lab.start(noise=NOISE, checkpointer={"secondary": self.relay.endpoint, **hasty})

    def _relay(self, guest: EmbeddedGuest) -> Relay:
        return self.stack.enter_context(Relay(self.lab.directory / f"{guest.name}.relay", guest.endpoint))

    def round(self, clients: Crowd) -> None:
        """Let something happen at a moment, and make a pair again of whoever is left."""
        events: tuple[Callable[[], bool], ...] = (
            self.kill_primary, self.kill_primary, self.cut_primary_off, self.stop_primary, self.break_channel,
            self.kill_secondary, self.kill_receiver, self.cut_secondary_off,
        )  # fmt: skip
        event = self.random.choice(events)
        kind, nth = self.random.choice(MOMENTS), self.random.randrange(1, 4)
        self.told.append(f"{event.__name__} at {messages.KIND_NAMES[kind]} {nth}")
        clients.wait_for(self.relay.arm(kind, nth, event))
        clients.wait(1)
        if event == self.break_channel:
            return
        self.wait_for_solo()
        counters = settled(self.lab)
        if event in (self.kill_primary, self.cut_primary_off, self.stop_primary):
            self.promotions += 1
            self.primary = self.secondary
        assert counters["promotions"] == self.promotions
        self.protect()

    def wait_for_solo(self) -> None:
        """Wait until the proxy knows that a guest is lost."""
        end = time.monotonic() + PATIENCE
        while self.lab.proxy.status()["mode"] != "solo":
            assert time.monotonic() < end, "nobody notices that a guest is lost"

    def protect(self) -> None:
        """Give the one that is left a new secondary; now and then that dies before it is one."""
        while True:
            self.secondary = self.lab.add_guest(f"guest{len(self.lab.guests)}")
            self.secondary.start(NOISE[len(self.lab.guests) % 2])
            self.secondary.start_receiver()
            self.relay = self._relay(self.secondary)
            dies = self.random.random() < 0.2
            if dies:
                moment = self.random.choice((messages.WELCOME, messages.ZEROS, messages.APPLY))
                self.relay.arm(moment, 1, self.kill_secondary)
            try:
                self.lab.proxy.protect(f"packet:{self._port()}", self.relay.endpoint)
            except ControlRefused:
                assert dies
            else:
                if not self.relay.happened.is_set():
                    return
                self.wait_for_solo()  # it died when it was one

    def _port(self) -> str:
        return f"guest{len(self.lab.guests) - 1}"

    # Events, each of which says whether the message is passed on

    def kill_primary(self) -> bool:
        self.primary.signal_guest(signal.SIGKILL)
        return True

    def stop_primary(self) -> bool:
        self.primary.signal_guest(signal.SIGSTOP)
        return True

    def cut_primary_off(self) -> bool:
        self.primary.kill()
        return True

    def break_channel(self) -> bool:
        return False

    def kill_secondary(self) -> bool:
        self.secondary.signal_guest(signal.SIGKILL)
        return True

    def kill_receiver(self) -> bool:
        self.secondary.kill_receiver()
        return True

    def cut_secondary_off(self) -> bool:
        self.secondary.kill()
        return True


def last_words(lab: EmbeddedLab) -> str:
    """Give the ends of all logs, for whoever has to find out why."""
    logs = sorted(lab.directory.glob("*.log"), key=lambda log: log.stat().st_mtime)
    return "\n".join(line for log in logs for line in [f"{log.name}:", *log.read_text().splitlines()[-20:]])


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("seed", [1, 2])
def test_the_service_goes_on(stack: ExitStack, seed: int) -> None:
    lab = stack.enter_context(EmbeddedLab())
    service = Service(lab, seed, stack)
    with all_kinds(lab, seed) as clients:
        for _ in range(ROUNDS):
            try:
                service.round(clients)
            except BaseException as error:
                error.add_note(f"seed {seed}: {'; '.join(service.told)}")
                error.add_note(f"answers: {clients.answered}\n{last_words(lab)}")
                raise
        clients.wait(3)
    assert settled(lab)["promotions"] == service.promotions
