"""Embedded guests behind the real proxy, kept equal by the memory checkpointer: every byte, every count."""

import signal
from collections.abc import Callable, Iterator

import pytest

from colo_compare.checkpoint.memory import messages
from colo_compare.demo.embedded import EmbeddedLab
from colo_compare.demo.lab import GUEST4, GUEST6
from tests.e2e.oracle import NOISE, all_kinds
from tests.e2e.relay import Relay
from tests.e2e.traffic import ask, ping
from tests.e2e.verdict import settled

# So that what hangs is found soon.
HASTY = {"timeout": "1s"}


@pytest.fixture
def lab() -> Iterator[EmbeddedLab]:
    with EmbeddedLab() as lab:
        yield lab


def test_equal_guests_need_no_checkpoint(lab: EmbeddedLab) -> None:
    lab.start()
    for host in (GUEST4, GUEST6):
        assert ping(lab, host, [b"a", b"b" * 1000]) == [b"a", b"b" * 1000]
        assert ask(lab, host, 7, [b"one", b"two" * 400]) == [b"one", b"two" * 400]
    with all_kinds(lab, 1) as clients:
        clients.wait(20)
    counters = settled(lab)
    assert {reason: n for reason, n in counters["requests"].items() if n} == {"startup": 1}
    assert counters["compared_bytes"] > 1 << 18


def test_guests_that_differ_are_made_equal(lab: EmbeddedLab) -> None:
    lab.start(noise=NOISE)
    with all_kinds(lab, 2) as clients:
        clients.wait(20)
    counters = settled(lab)
    assert counters["divergences"]["payload"] >= 4
    assert counters["checkpoints"]["committed"] >= 5
    assert counters["promotions"] == counters["secondaries_lost"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_primary_dies(lab: EmbeddedLab, seed: int) -> None:
    lab.start(noise=NOISE)
    with all_kinds(lab, seed) as clients:
        clients.wait(2 + 3 * seed)
        lab.guests[0].signal_guest(signal.SIGKILL)
        clients.wait(5)
    assert settled(lab)["promotions"] == 1


@pytest.mark.parametrize(
    "kind", [messages.REPLY, messages.SYNC, messages.APPLY, messages.RESUME], ids=messages.KIND_NAMES.get
)
def test_the_primary_dies_in_a_checkpoint(lab: EmbeddedLab, kind: int) -> None:
    def die() -> bool:
        lab.guests[0].signal_guest(signal.SIGKILL)
        return True

    _happens(lab, kind, die)
    assert settled(lab)["promotions"] == 1


@pytest.mark.parametrize(
    "kind", [messages.SYNC, messages.APPLY, messages.APPLIED], ids=messages.KIND_NAMES.get
)
def test_the_channel_breaks_in_a_checkpoint(lab: EmbeddedLab, kind: int) -> None:
    def cut() -> bool:
        return False

    _happens(lab, kind, cut)
    counters = settled(lab)
    assert counters["promotions"] == counters["secondaries_lost"] == 0


@pytest.mark.parametrize("kind", [messages.PAGES, messages.APPLY], ids=messages.KIND_NAMES.get)
def test_the_receiver_dies_in_a_checkpoint(lab: EmbeddedLab, kind: int) -> None:
    def die() -> bool:
        lab.guests[1].kill_receiver()
        return True

    _happens(lab, kind, die)
    counters = settled(lab)
    assert (counters["promotions"], counters["secondaries_lost"]) == (0, 1)


@pytest.mark.parametrize("kind", [messages.SYNC, messages.RESUME], ids=messages.KIND_NAMES.get)
def test_the_secondary_dies_in_a_checkpoint(lab: EmbeddedLab, kind: int) -> None:
    def die() -> bool:
        lab.guests[1].signal_guest(signal.SIGKILL)
        return True

    _happens(lab, kind, die)
    counters = settled(lab)
    assert (counters["promotions"], counters["secondaries_lost"]) == (0, 1)


def _happens(lab: EmbeddedLab, kind: int, fault: Callable[[], bool]) -> None:
    """Let it happen in the third checkpoint; every client goes on."""
    with Relay(lab.directory / "relay", lab.guests[1].endpoint) as relay:
        happened = relay.arm(kind, 3, fault)
        lab.start(noise=NOISE, checkpointer={"secondary": relay.endpoint, **HASTY})
        with all_kinds(lab, kind) as clients:
            clients.wait_for(happened)
            clients.wait(8)


def test_the_primary_hangs(lab: EmbeddedLab) -> None:
    lab.start(checkpointer=HASTY)
    with all_kinds(lab, 3) as clients:
        clients.wait(3)
        lab.guests[0].signal_guest(signal.SIGSTOP)
        clients.wait(5)
    assert settled(lab)["promotions"] == 1


def test_the_secondary_hangs(lab: EmbeddedLab) -> None:
    lab.start()
    with all_kinds(lab, 4) as clients:
        clients.wait(3)
        lab.guests[1].signal_guest(signal.SIGSTOP)
        clients.wait(5)
    counters = settled(lab)
    assert (counters["promotions"], counters["secondaries_lost"]) == (0, 1)
