"""Each way in which a guest can be lost; the client's connections go on, and never do both run alone.

What QEMU was seen to do, and docs/qemu.md says is done then, is made to happen by

| what happens | test |
|---|---|
| primary killed | test_a_guest_is_killed_in_mid_transfer |
| primary killed in mid-checkpoint | test_in_mid_checkpoint[killed-primary] |
| primary hangs | test_an_idle_guest_hangs[primary] |
| primary hangs while the secondary loads | test_in_mid_checkpoint[hangs-primary] |
| secondary killed, idle | test_the_secondary_is_killed_while_nothing_happens |
| secondary killed, then a request | test_the_secondary_is_killed_and_a_checkpoint_asked_for |
| secondary killed in mid-checkpoint | test_in_mid_checkpoint[killed-secondary] |
| secondary hangs | test_an_idle_guest_hangs[secondary], test_the_secondary_hangs_before_a_checkpoint |
| secondary hangs in mid-checkpoint, the primary stopped | test_in_mid_checkpoint[hangs-secondary] |
| the connection between the two breaks | test_the_connection_between_the_guests_breaks |
| the connection to a monitor breaks, the guest lives | test_monitors.py |
| neither monitor answers | test_the_whole_machine_hangs_for_a_while |
| QEMU begins a checkpoint by itself | test_somebody_else_makes_a_checkpoint |
| lost-heartbeat while the peer lives | test_nobody_takes_over_from_a_guest_that_cannot_be_fenced |
"""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from colo_compare.demo.qemu.image import BULK
from colo_compare.demo.qemu.lab import Lab
from colo_compare.demo.qemu.machine import Machine
from colo_compare.demo.qemu.monitor import SpareMonitor
from tests.qemu.alone import assert_alone
from tests.qemu.client import ECHO, Connection, at, fetch
from tests.qemu.drop_in import DropInLab

ROOT = Path(__file__).parents[2]
EARLY = 1 << 18  # bytes of a download that have come when something happens
TALK = b"are you there? " * 10
BY_LOST = pytest.mark.parametrize("lost", [0, 1], ids=["primary", "secondary"])


def test_every_row_of_the_documentation_has_a_test() -> None:
    table = (ROOT / "docs/qemu.md").read_text().partition("## When something breaks")[2].partition("###")[0]
    rows = re.findall(r"^\| (\w[^|]+) \|", table, re.MULTILINE)[1:]
    ours = dict(re.findall(r"^\| (\w[^|]+) \| (\w[^|]+) \|", __doc__ or "", re.MULTILINE)[1:])
    assert [row for row in rows if not any(mine.startswith(row) for mine in ours)] == []
    for name in ", ".join(ours.values()).split(", "):
        assert name.partition("[")[0] in globals() or Path(__file__).with_name(name).exists()


def when(machine: Machine, event: str, ask: Callable[[], object], act: Callable[[], object]) -> None:
    """Ask for something, and act as soon as the guest tells of an event that follows from it."""
    with SpareMonitor(machine) as monitor:
        ask()
        monitor.wait_for(event)
        act()


@BY_LOST
@pytest.mark.parametrize("kind", [Lab, DropInLab], ids=["inline", "drop-in"])
def test_a_guest_is_killed_in_mid_transfer(pair: Callable[..., Lab], kind: type[Lab], lost: int) -> None:
    lab = pair(kind)
    hit, survivor = lab.machines[lost], lab.machines[1 - lost]

    with Connection(lab, ECHO) as idle:
        assert idle.ask(TALK) == TALK
        assert fetch(lab, "/bulk", progress=at(EARLY, hit.kill)) == BULK
        assert idle.ask(TALK) == TALK

    assert_alone(lab, survivor, hit)
    assert lab.counters()["promotions"] == 1 - lost
    if kind is DropInLab and lost == 0:
        assert lab.proxy.status()["ports"]["secondary"]["sent_frames"] > 0  # what the client had not got


@BY_LOST
def test_an_idle_guest_hangs(pair: Callable[..., Lab], lost: int) -> None:
    lab = pair()
    hung, survivor = lab.machines[lost], lab.machines[1 - lost]

    with Connection(lab, ECHO) as connection:
        assert connection.ask(TALK) == TALK
        hung.freeze()
        assert connection.ask(TALK) == TALK

    assert_alone(lab, survivor, hung)


def test_the_secondary_hangs_before_a_checkpoint(pair: Callable[..., Lab]) -> None:
    lab = pair()
    primary, secondary = lab.machines

    with Connection(lab, ECHO) as connection:
        secondary.freeze()
        lab.ask_for_checkpoint()
        assert connection.ask(TALK) == TALK

    assert_alone(lab, primary, secondary)


@BY_LOST
@pytest.mark.parametrize("how", [Machine.kill, Machine.freeze], ids=["killed", "hangs"])
def test_in_mid_checkpoint(pair: Callable[..., Lab], lost: int, how: Callable[[Machine], None]) -> None:
    lab = pair()
    _, secondary = lab.machines
    hit, survivor = lab.machines[lost], lab.machines[1 - lost]

    with Connection(lab, ECHO) as connection:
        assert connection.ask(TALK) == TALK
        # The secondary's STOP says that QEMU is copying.
        when(secondary, "STOP", lab.ask_for_checkpoint, lambda: how(hit))
        assert connection.ask(TALK) == TALK

    assert_alone(lab, survivor, hit)


def test_the_proxy_is_killed_and_joins_the_pair_again(pair: Callable[..., Lab]) -> None:
    lab = pair()
    primary, secondary = lab.machines

    with Connection(lab, ECHO) as connection:
        assert connection.ask(TALK) == TALK
        lab.proxy.kill()
        lab.start_proxy()
        assert connection.ask(TALK) == TALK
        primary.kill()
        assert connection.ask(TALK) == TALK

    assert_alone(lab, secondary, primary)


def test_an_operator_moves_the_service(pair: Callable[..., Lab]) -> None:
    lab = pair()
    primary, secondary = lab.machines

    with Connection(lab, ECHO) as connection:
        assert connection.ask(TALK) == TALK
        assert fetch(lab, "/bulk", progress=at(EARLY, lab.proxy.promote)) == BULK
        assert connection.ask(TALK) == TALK

    assert_alone(lab, secondary, primary)


def test_nobody_takes_over_from_a_guest_that_cannot_be_fenced(pair: Callable[..., Lab]) -> None:
    lab = pair(tcp=True, checkpointer={"fence": ["/bin/false"]})
    primary, secondary = lab.machines

    with SpareMonitor(secondary) as monitor, Connection(lab, ECHO) as connection:
        primary.freeze()
        lab.wait_for("refusal", lambda: "cannot be fenced" in lab.proxy.log.read_text())
        assert monitor.colo_mode == "secondary"
        assert lab.proxy.status()["mode"] == "protect"
        primary.process.send_signal(signal.SIGCONT)
        assert connection.ask(TALK) == TALK

    assert primary.alive
    assert secondary.alive
    assert lab.proxy.status()["protected"]
    lab.checkpoint()


def test_the_secondary_is_killed_while_nothing_happens(pair: Callable[..., Lab]) -> None:
    """QEMU's primary says nothing then."""
    lab = pair()
    primary, secondary = lab.machines

    secondary.kill()

    assert_alone(lab, primary, secondary)


def test_the_secondary_is_killed_and_a_checkpoint_asked_for(pair: Callable[..., Lab]) -> None:
    """The request is on its way before anybody can know that the secondary is dead."""
    lab = pair()
    primary, secondary = lab.machines

    with Connection(lab, ECHO) as connection, SpareMonitor(primary) as monitor:
        secondary.kill()
        monitor.execute("migrate-set-parameters", **{"x-checkpoint-delay": 3600000})
        assert connection.ask(TALK) == TALK

    assert_alone(lab, primary, secondary)


def test_the_connection_between_the_guests_breaks(pair: Callable[..., Lab]) -> None:
    lab = pair()
    primary, secondary = lab.machines

    with Connection(lab, ECHO) as connection, SpareMonitor(primary) as monitor:
        assert connection.ask(TALK) == TALK
        monitor.execute("yank", instances=[{"type": "migration"}])
        assert connection.ask(TALK) == TALK

    assert_alone(lab, primary, secondary)


def test_the_whole_machine_hangs_for_a_while(pair: Callable[..., Lab]) -> None:
    """Neither monitor answers: nobody can say whose fault that is, and nobody is fenced."""
    lab = pair()

    with Connection(lab, ECHO) as connection:
        assert connection.ask(TALK) == TALK
        for machine in lab.machines:
            machine.freeze()
        lab.wait_for("silence", lambda: "no monitor answers" in lab.proxy.log.read_text())
        for machine in lab.machines:
            machine.process.send_signal(signal.SIGCONT)
        assert connection.ask(TALK) == TALK

    assert all(machine.alive for machine in lab.machines)
    assert lab.proxy.status()["protected"]
    lab.checkpoint()


def test_somebody_else_makes_a_checkpoint(pair: Callable[..., Lab]) -> None:
    """The proxy follows a checkpoint that QEMU begins by itself, or gives the secondary up if it was late.

    QEMU lets the primary run again without waiting for anybody, after 3 ms: on a busy machine the proxy may
    not have looked in between, and cannot tell what was sent before.
    """
    lab = pair()
    primary, secondary = lab.machines

    with Connection(lab, ECHO) as connection, SpareMonitor(primary) as monitor:
        for _ in range(3):
            assert connection.ask(TALK) == TALK
            before = lab.proxy.status()["epoch"]
            monitor.execute("migrate-set-parameters", **{"x-checkpoint-delay": 3600000})
            lab.wait_for("end of the epoch", lambda: ended(lab, before))  # noqa: B023 - called at once
        assert connection.ask(TALK) == TALK

    if lab.proxy.status()["protected"]:
        assert all(machine.alive for machine in lab.machines)
    else:
        assert "too short for the proxy to follow" in lab.proxy.log.read_text()
        # It is cut off at once, and then killed.
        lab.wait_for("death of the secondary", lambda: not secondary.alive)
        assert_alone(lab, primary, secondary)


def ended(lab: Lab, epoch: int) -> bool:
    """Whether an epoch is over, or the pair."""
    status = lab.proxy.status()
    return bool(status["epoch"] > epoch or status["mode"] == "solo")
