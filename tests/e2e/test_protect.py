"""A guest that runs alone gets a new secondary, under traffic, and then it dies."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from colo_compare import cli
from colo_compare.demo import link
from colo_compare.demo.client import Connection
from colo_compare.demo.content import digest
from colo_compare.demo.embedded import EmbeddedLab
from colo_compare.demo.lab import GUEST4, GUEST6, Lab
from colo_compare.demo.proxy_process import Table
from tests.e2e.conftest import NULL
from tests.e2e.oracle import Crowd, Customer, Datagrams, Echoed
from tests.e2e.test_failover import Once
from tests.e2e.verdict import settled

MIB = 1 << 20
SIZE = 24 * MIB
NOISE = ["--random-every", "5", "--random-isn", "--clock-jitter", "200us"]


# Guests whose state is copied: every connection outlives every guest


@pytest.fixture
def lab() -> Iterator[EmbeddedLab]:
    with EmbeddedLab() as lab:
        yield lab


@pytest.mark.parametrize("lost", ["primary", "secondary"])
def test_every_connection_outlives_every_guest(lab: EmbeddedLab, lost: str) -> None:
    for name in ("third", "fourth"):
        lab.add_guest(name)
    noise = [["--noise-seed", str(number), *NOISE] for number in range(4)]
    for spare, its_noise in zip(lab.guests[2:], noise[2:], strict=True):
        spare.start(its_noise)
    lab.start(noise=noise)
    primary, secondary = lab.guests[:2]
    crowd = Crowd(
        Customer(lab, "four"), Customer(lab, "six", GUEST6), Echoed(lab, "echo"), Datagrams(lab, "datagrams")
    )
    with crowd as clients:
        clients.wait(3)
        for name, spare in zip(("third", "fourth"), lab.guests[2:], strict=True):
            dead, primary = (primary, secondary) if lost == "primary" else (secondary, primary)
            dead.kill()
            clients.wait(2)
            spare.start_receiver()
            lab.proxy.protect(f"packet:{name}", spare.endpoint)
            assert lab.proxy.status()["protected"]
            secondary = spare
            clients.wait(3)
        primary.kill()
        clients.wait(3)
    counters = settled(lab)
    assert counters["promotions"] == (3 if lost == "primary" else 1)
    assert counters["secondaries_lost"] == (0 if lost == "primary" else 2)
    assert counters["compared_bytes"] > 0


def test_a_new_secondary_that_dies_before_it_is_one_costs_nothing(lab: EmbeddedLab) -> None:
    for name in ("third", "fourth"):
        lab.add_guest(name)
    _, survivor, early, late = lab.guests
    for spare in (early, late):
        spare.start()
    lab.start()
    with Crowd(Customer(lab, "four"), Echoed(lab, "echo")) as clients:
        lab.guests[0].kill()
        clients.wait(2)
        with pytest.raises(Exception, match="no secondary listens there"):
            lab.proxy.protect("packet:third", early.endpoint)
        clients.wait(2)
        late.start_receiver()
        lab.proxy.protect("packet:fourth", late.endpoint)
        clients.wait(2)
        survivor.kill()
        clients.wait(2)
    assert settled(lab)["promotions"] == 2


# Guests whose state nobody copies: a connection from before stays with the guest that has it


def commands(notes: Path) -> Table:
    """Give the command backend's options; its programs note what they were told."""

    def note(event: str) -> list[str]:
        words = f"{event} $COLO_SIDE ($COLO_PRIMARY_PORT, $COLO_SECONDARY_PORT)"
        return ["sh", "-c", f'echo "{words}" >> {notes}']

    programs = {event: note(event) for event in ("promote", "abandon", "fence", "protect")}
    return {"backend": "command", "checkpoint": ["true"], "copies_state": False, **programs}


def join(lab: Lab, interface: str) -> None:
    """Bring a new guest, and do what an operator does."""
    guest = lab.add_guest(interface)
    guest.set_up()
    guest.start()
    lab.proxy_namespace.call(link.wait_until_up, interface)
    argv = ["protect", "--socket", str(lab.directory / "control.sock")]
    if interface != "primary":  # that was the lost guest's
        argv += ["--port", f"packet:{interface}"]
    assert cli.main(argv) == cli.OK


@pytest.mark.parametrize(("backend", "interface"), [("null", "primary"), ("command", "third")])
def test_connections_from_before_end_with_their_guest(
    pair: Callable[..., Lab], backend: str, interface: str, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    lab = pair(checkpointer=NULL if backend == "null" else commands(notes))
    first, second = lab.guests
    with Connection(lab.client, GUEST4) as old, ExitStack() as stack:
        assert old.download(MIB).sha256 == digest(MIB)
        first.kill()
        download = old.download(SIZE, Once(SIZE // 3, lambda: join(lab, interface)))
        assert download.sha256 == digest(SIZE)
        before = settled(lab)

        new = stack.enter_context(Connection(lab.client, GUEST6))
        assert new.download(SIZE, Once(SIZE // 2, second.kill)).sha256 == digest(SIZE)
        after = settled(lab)
        assert after["released"]["matched"] > before["released"]["matched"]
        assert after["compared_bytes"] - before["compared_bytes"] > SIZE // 2
        with pytest.raises(ConnectionError):
            old.download(MIB)  # the third guest has never heard of it
        assert new.download(MIB).sha256 == digest(MIB)
    counters = settled(lab)
    assert counters["promotions"] == 2
    assert not any(counters["divergences"].values()), counters["divergences"]
    if backend == "command":
        assert notes.read_text().splitlines() == [
            "fence primary (primary, secondary)",
            "promote secondary (primary, secondary)",
            "protect  (secondary, primary)",
            "fence primary (secondary, primary)",
            "promote secondary (secondary, primary)",
        ]
