"""A protected pair serves its clients as one guest would."""

import struct
from collections.abc import Callable

import pytest

from colo_compare.demo.qemu.image import BULK, PAGE
from colo_compare.demo.qemu.lab import GUEST4, GUEST6, Lab
from tests.qemu.client import (
    DIFFERENT,
    DIFFERENT_SIZE,
    ECHO,
    Connection,
    Load,
    ask_datagrams,
    download,
    fetch,
)
from tests.qemu.drop_in import DropInLab

CHECKPOINTS = 200
LARGE = 16 << 20  # bytes: more than all that lies between the guest and its client takes


@pytest.mark.parametrize("vnet_hdr", [False, True], ids=["plain", "offloads"])
@pytest.mark.parametrize("kind", [Lab, DropInLab], ids=["inline", "drop-in"])
def test_every_service_answers(pair: Callable[..., Lab], kind: type[Lab], vnet_hdr: bool) -> None:
    lab = pair(kind, vnet_hdr=vnet_hdr)

    for host in (GUEST4, GUEST6):
        assert fetch(lab, host=host) == PAGE
        assert fetch(lab, "/bulk", host) == BULK
        with Connection(lab, ECHO, host) as connection:
            for question in (b"a", b"b" * 1000, b"c" * 100_000):
                assert connection.ask(question) == question
        questions = [b"%d" % number * 100 for number in range(20)]
        assert ask_datagrams(lab, questions, host) == questions
    assert download(lab, LARGE) == struct.pack(f">{LARGE // 8}Q", *range(LARGE // 8))

    status = lab.proxy.status()
    assert status["protected"]
    released = status["counters"]["released"]
    assert released["matched"] > 20 * released["covered"]


@pytest.mark.parametrize("kind", [Lab, DropInLab], ids=["inline", "drop-in"])
def test_what_differs_waits_for_a_checkpoint_and_is_whole(pair: Callable[..., Lab], kind: type[Lab]) -> None:
    """A regular checkpoint may come first, and then the difference is never seen. One it takes for each."""
    lab = pair(kind)
    status = lab.proxy.status()
    before, epoch = status["counters"]["divergences"]["payload"], status["epoch"]

    answers = set()
    for _ in range(10):
        with Connection(lab, DIFFERENT) as connection:
            answers.add(connection.receive(DIFFERENT_SIZE + 1))

    assert len(answers) == 10
    assert {len(answer) for answer in answers} == {DIFFERENT_SIZE}
    status = lab.proxy.status()
    assert status["epoch"] >= epoch + 10
    assert status["counters"]["divergences"]["payload"] > before


def test_hundreds_of_checkpoints_under_load_leave_both_guests_sound(pair: Callable[..., Lab]) -> None:
    lab = pair()
    primary, secondary = lab.machines
    ticks = len(primary.ticks())

    with Load(lab) as load:
        while lab.counters()["checkpoints"]["committed"] < CHECKPOINTS:
            lab.checkpoint()
            assert not load.errors
    assert load.done > 2

    assert lab.proxy.status()["protected"]
    assert lab.counters()["checkpoints"]["failed"] == lab.counters()["checkpoints"]["timed_out"] == 0
    lab.wait_for("ticks", lambda: len(primary.ticks()) > ticks + 2)
    primary.kill()
    with Connection(lab, ECHO) as connection:
        assert connection.ask(b"still there") == b"still there"
    ticks = len(secondary.ticks())
    lab.wait_for("ticks of the new primary", lambda: len(secondary.ticks()) > ticks + 1)
    assert primary.troubles() == []
    assert secondary.troubles() == []
