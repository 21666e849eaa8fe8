"""Twenty deaths at moments that nobody chose: each guest, killed or hung, also in the middle of a checkpoint.

The moment is a number of bytes of a download, and in a checkpoint a delay from the moment in which QEMU
begins to copy. Both come from the round's number, so a round that failed can be made again (the machine's own
timing cannot).
"""

import random
import time
from collections.abc import Callable

import pytest

from colo_compare.demo.qemu.image import BULK
from colo_compare.demo.qemu.lab import GUEST4, GUEST6, Lab
from colo_compare.demo.qemu.machine import Machine
from colo_compare.demo.qemu.monitor import SpareMonitor
from tests.qemu.alone import assert_alone
from tests.qemu.client import ECHO, Connection, at, fetch

ROUNDS = 20
COPYING = 0.03  # seconds that a checkpoint may take; most take less
TALK = b"are you there? " * 100


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_guest_is_lost_at_a_random_moment(pair: Callable[..., Lab], number: int) -> None:
    lost, how, in_checkpoint = number % 2, (Machine.kill, Machine.freeze)[number // 2 % 2], number % 3 != 0
    chance = random.Random(number)
    lab = pair()
    hit, survivor = lab.machines[lost], lab.machines[1 - lost]

    def strike() -> None:
        if in_checkpoint:
            with SpareMonitor(lab.machines[1]) as monitor:
                lab.ask_for_checkpoint()
                monitor.wait_for("STOP")
                time.sleep(chance.uniform(0, COPYING))
        how(hit)

    with Connection(lab, ECHO) as old, Connection(lab, ECHO, GUEST6) as old6:
        assert old.ask(TALK) == TALK
        lab.checkpoint()
        with Connection(lab, ECHO) as new:
            assert new.ask(TALK) == TALK
            moment = chance.randrange(1, len(BULK) * 3 // 4)
            host = chance.choice((GUEST4, GUEST6))
            assert fetch(lab, "/bulk", host, at(moment, strike)) == BULK
            for connection in (old, old6, new):
                assert connection.ask(TALK) == TALK

    assert_alone(lab, survivor, hit)
    assert lab.counters()["promotions"] == 1 - lost
