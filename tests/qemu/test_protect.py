"""A guest that runs alone gets a new secondary, with its connections open; and then it dies, too."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from colo_compare.control import call
from colo_compare.demo.qemu.image import BULK
from colo_compare.demo.qemu.lab import Lab
from colo_compare.demo.qemu.machine import Machine
from colo_compare.demo.qemu.monitor import SpareMonitor
from colo_compare.errors import ControlRefused
from tests.qemu.client import ECHO, Connection, Load, ask_datagrams, at, fetch
from tests.qemu.drop_in import DropInLab

TALK = b"are you there? " * 10
QUARTER = len(BULK) // 4


class Attempt(threading.Thread):
    """An attempt to protect, beside what the test does."""

    def __init__(self, lab: Lab, machine: Machine, limit: float = 60.0) -> None:
        super().__init__()
        self._lab, self._machine, self._limit = lab, machine, limit
        self.error = ""
        self.start()

    def run(self) -> None:
        try:
            self._lab.protect_again(self._machine, self._limit)
        except ControlRefused as error:
            self.error = str(error)


def lose(lab: Lab, machine: Machine) -> None:
    machine.kill()
    lab.wait_for("end of the pair", lambda: lab.proxy.status()["mode"] == "solo")


def assert_sound(lab: Lab, survivor: Machine) -> None:
    """Check that the guest that is left is an ordinary one, without a scratch."""
    with SpareMonitor(survivor) as monitor:
        lab.wait_for("end of COLO", lambda: monitor.colo_mode == "none")
        lab.wait_for("running guest", lambda: bool(monitor.execute("query-status")["running"]))
    ticks = len(survivor.ticks())
    lab.wait_for("ticks", lambda: len(survivor.ticks()) > ticks)
    assert survivor.troubles() == []


def test_a_download_outlives_two_primaries(pair: Callable[..., Lab]) -> None:
    lab = pair()
    first, second = lab.machines
    attempts: list[Attempt] = []

    def protect() -> None:
        attempts.append(Attempt(lab, lab.bring()))

    def end() -> None:
        attempts[0].join()
        assert attempts[0].error == ""
        assert lab.proxy.status()["protected"]
        second.kill()

    steps = [at(QUARTER, first.kill), at(2 * QUARTER, protect), at(3 * QUARTER, end)]

    def progress(size: int) -> None:
        for step in steps:
            step(size)

    with Connection(lab, ECHO) as idle:
        assert idle.ask(TALK) == TALK
        assert fetch(lab, "/bulk", progress=progress) == BULK
        assert idle.ask(TALK) == TALK
    assert lab.counters()["promotions"] == 2
    assert_sound(lab, lab.machines[2])


def test_one_connection_outlives_every_guest(pair: Callable[..., Lab]) -> None:
    lab = pair()
    primary, secondary = lab.machines
    with Connection(lab, ECHO) as connection:
        assert connection.ask(TALK) == TALK
        for lost in ("primary", "secondary", "secondary", "primary"):
            dead, left = (primary, secondary) if lost == "primary" else (secondary, primary)
            lose(lab, dead)
            assert connection.ask(TALK) == TALK
            primary, secondary = left, lab.bring()
            lab.protect_again(secondary)
            assert connection.ask(TALK) == TALK
            lab.checkpoint()
            assert connection.ask(TALK) == TALK
            assert ask_datagrams(lab, [b"new"]) == [b"new"]
    # Compared, not only covered by checkpoints.
    assert lab.counters()["released"]["matched"] > 0
    for machine in (primary, secondary):
        assert machine.troubles() == []


@contextmanager
def talking(lab: Lab) -> Iterator[None]:
    """Check that a connection goes on through the block, and a new one after it."""
    with Connection(lab, ECHO) as connection:
        assert connection.ask(TALK) == TALK
        yield
        assert connection.ask(TALK) == TALK
    assert ask_datagrams(lab, [b"after"]) == [b"after"]


def assert_undone(lab: Lab, attempt: Attempt, survivor: Machine) -> None:
    """Check that an attempt came to nothing, or its pair to an end, and that the guest goes on alone."""
    attempt.join()
    assert not attempt.error or attempt.error.startswith("not protected: ")
    lab.wait_for("end of the pair", lambda: lab.proxy.status()["mode"] == "solo")
    assert_sound(lab, survivor)


@pytest.mark.parametrize(("kind", "later"), [(Lab, ()), (DropInLab, (0.8, 0.95))], ids=["inline", "drop-in"])
def test_the_new_guest_is_killed_while_the_pair_is_made(
    pair: Callable[..., Lab], kind: type[Lab], later: tuple[float, ...]
) -> None:
    """At a moment that wanders over the whole of the migration; `later`: and over what comes after it."""
    lab = pair(kind)
    primary, secondary = lab.machines
    lab.checkpoint()
    lose(lab, primary)
    with talking(lab):
        for delay in (0.05, 0.2, 0.35, 0.5, 0.65, *later):
            new = lab.bring()
            attempt = Attempt(lab, new)
            time.sleep(delay)  # of QEMU's work, of which nothing tells
            new.kill()
            assert_undone(lab, attempt, secondary)
        lab.protect_again(lab.bring())
        assert lab.proxy.status()["protected"]


@pytest.mark.parametrize("state", ["active", "colo"])
def test_the_new_guest_hangs_while_the_pair_is_made(pair: Callable[..., Lab], state: str) -> None:
    lab = pair(checkpointer={"migrate_timeout": "4s", "heartbeat_timeout": "1s"})
    primary, secondary = lab.machines
    lose(lab, primary)
    with talking(lab):
        new = lab.bring()
        with SpareMonitor(secondary) as monitor:
            attempt = Attempt(lab, new)
            # Or later, where this is over sooner than it is seen.
            lab.wait_for(state, lambda: monitor.execute("query-migrate").get("status") in (state, "colo"))
        new.freeze()
        assert_undone(lab, attempt, secondary)
        assert not new.alive  # it was fenced
        lab.protect_again(lab.bring())
        assert lab.proxy.status()["protected"]


def test_nobody_waits_any_longer(pair: Callable[..., Lab]) -> None:
    lab = pair()
    primary, secondary = lab.machines
    lose(lab, secondary)
    with talking(lab):
        new = lab.bring()
        new.freeze()
        with pytest.raises(ControlRefused, match=r"not done within 1\.5 s"):
            lab.protect_again(new, limit=1.5)
        assert_sound(lab, primary)
        lab.protect_again(lab.bring())


def test_a_guest_that_cannot_be_meant_is_left_alone(pair: Callable[..., Lab]) -> None:
    """The monitor of another guest was named by mistake: nobody kills that."""
    lab = pair()
    lose(lab, lab.machines[0])
    with talking(lab):
        stranger = lab.bring()
        changes = {"secondary": f"unix:{stranger.qmp}", "migrate_uri": ""}
        params = {"port": f"packet:{stranger.name}", "set": changes}
        with pytest.raises(ControlRefused, match="name the secondary's -incoming address"):
            call(lab.directory / "control.sock", "protect", params, timeout=60.0)
        assert stranger.alive


def test_a_secondary_behind_filters_is_replaced(pair: Callable[..., Lab]) -> None:
    """The sockets of its QEMU are where those of the lost one were: the proxy's ports find them again."""
    lab = pair(DropInLab)
    primary, secondary = lab.machines
    with Connection(lab, ECHO) as connection:
        assert connection.ask(TALK) == TALK
        lose(lab, secondary)
        assert connection.ask(TALK) == TALK
        new = lab.bring()
        lab.protect_again(new)
        assert connection.ask(TALK) == TALK
        lab.checkpoint()
        before = lab.counters()["released"]["matched"]
        assert connection.ask(TALK) == TALK
        assert fetch(lab, "/bulk") == BULK
        assert lab.counters()["released"]["matched"] > before
        primary.kill()
        assert connection.ask(TALK) == TALK
    assert_sound(lab, new)


@pytest.mark.parametrize("vnet_hdr", [False, True], ids=["plain", "vnet_hdr"])
def test_guests_that_took_over_behind_filters_are_protected_again(
    pair: Callable[..., DropInLab], vnet_hdr: bool
) -> None:
    """Two of them, one after the other, with a connection of each life and others that come and go."""
    lab = pair(DropInLab, vnet_hdr=vnet_hdr)
    first, second = lab.machines
    with ExitStack() as stack:
        connections: list[Connection] = []

        def talk() -> None:
            connections.append(stack.enter_context(Connection(lab, ECHO)))
            for connection in connections:
                assert connection.ask(TALK) == TALK
            assert ask_datagrams(lab, [b"question"]) == [b"question"]

        talk()
        lab.checkpoint()
        with Load(lab) as load:
            with Connection(lab, ECHO) as late:  # so QEMU's rewriter translates for it from here on
                assert late.ask(TALK) == TALK
                lose(lab, first)
                talk()
                assert late.ask(TALK) == TALK
                lab.protect_again(third := lab.bring())
                before = lab.counters()["released"]["matched"]
                talk()
                assert late.ask(TALK) == TALK
                lab.checkpoint()
                talk()
                assert late.ask(TALK) == TALK
            assert lab.counters()["released"]["matched"] > before
            lose(lab, second)
            talk()
            lab.tcp = True  # so the client has another port, too
            lab.protect_again(fourth := lab.bring())
            talk()
            lose(lab, fourth)
            talk()
            assert load.done > 0
        # None of those that spoke while nobody heard them had to wait for a checkpoint.
        assert "reasons=timeout" not in lab.proxy.log.read_text()
    assert lab.counters()["promotions"] == 2
    assert_sound(lab, third)


def test_what_is_refused_leaves_a_guest_that_took_over_behind_filters_as_it_was(
    pair: Callable[..., DropInLab],
) -> None:
    """Before anything has begun, and when the pair is made already."""
    lab = pair(DropInLab)
    first, second = lab.machines
    lab.checkpoint()
    with talking(lab), Load(lab):
        lose(lab, first)
        new = lab.bring()
        for released, client, words in (
            ("unix:/nowhere/released", "", "chardev-add"),
            ("", "stream+unix:///nowhere/released?reconnect=0", "nobody answers on /nowhere/released"),
        ):
            assert new.alive
            with pytest.raises(ControlRefused, match=f"not protected: .*{words}"):
                lab.protect_again(new, released=released, client=client)
            assert_sound(lab, second)
            with SpareMonitor(second) as monitor:
                filters = [found["name"] for found in monitor.execute("qom-list", path="/objects")]
                assert not {"colo-compare-said", "colo-compare-mirror", "colo-compare-released"} & set(
                    filters
                )
                assert {"colo-compare-out", "rew0"} <= set(filters)
                devices = [found["label"] for found in monitor.execute("query-chardev")]
                assert [name for name in devices if name.startswith(("colo", "mirror"))] == []
        assert not new.alive  # that pair had to come to its end
        lab.protect_again(lab.bring())
    assert lab.proxy.status()["protected"]


def test_a_proxy_is_started_again_after_a_failover_behind_filters(pair: Callable[..., DropInLab]) -> None:
    lab = pair(DropInLab)
    first, second = lab.machines
    lab.checkpoint()
    with Connection(lab, ECHO) as connection:
        assert connection.ask(TALK) == TALK
        lab.checkpoint()
        lose(lab, first)
        third = lab.bring()
        assert lab.proxy.stop() == 0
        assert connection.ask(TALK) == TALK
        lab.protect()
        before = lab.counters()["released"]["matched"]
        assert connection.ask(TALK) == TALK
        assert lab.counters()["released"]["matched"] > before
        lose(lab, second)
        assert connection.ask(TALK) == TALK
    assert_sound(lab, third)
