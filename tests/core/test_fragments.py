import pytest

from colo_compare.core.fragments import Reassembly
from colo_compare.core.ledger import Ledger
from colo_compare.core.settings import OBSERVE, Settings
from colo_compare.wire.frame import UDP, Frame, parse_frame
from tests.conversation import Clock, Conversation, Packet

LONG = bytes(range(200))


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(Settings(fragment_timeout=30.0), 100.0)


def packets(identification: int, version: int = 4, port: int = 53) -> list[Packet]:
    return Conversation(Clock(0.0), version, guest_port=port).primary.fragments(
        LONG, identification, (64, 128)
    )


def parsed(fragments: list[Packet]) -> list[Frame]:
    return [parse_frame(packet.data, 0, False) for packet in fragments]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_datagram_is_whole_with_its_last_piece(
    ledger: Ledger, version: int, order: tuple[int, ...]
) -> None:
    pieces = parsed(packets(1, version))
    reassembly = Reassembly(ledger, False)
    first, second, third = (pieces[index] for index in order)
    assert reassembly.add(first) is None
    assert reassembly.add(second) is None
    whole = reassembly.add(third)
    assert whole is not None
    assert whole.datagram.kind == UDP
    assert whole.datagram.data[whole.datagram.payload : whole.datagram.end] == LONG
    assert (whole.frame, whole.more) == (first, [second, third])
    assert reassembly.groups == {}


def test_the_primarys_pieces_are_held_until_then(ledger: Ledger) -> None:
    reassembly = Reassembly(ledger, True)
    one, two, three = parsed(packets(1))
    reassembly.add(one)
    reassembly.add(two)
    assert [held.frame for held in ledger.holds.entries()] == [one, two]
    assert reassembly.add(three) is not None
    assert ledger.holds.frames == 0


def test_datagrams_do_not_mix(ledger: Ledger) -> None:
    reassembly = Reassembly(ledger, False)
    one, two = parsed(packets(1)), parsed(packets(2))
    for a, b in zip(one[:2], two[:2], strict=True):
        assert reassembly.add(a) is None
        assert reassembly.add(b) is None
    assert reassembly.add(one[2]) is not None
    assert reassembly.frames() == two[:2]


def test_what_stays_incomplete_is_forgotten_after_a_while(ledger: Ledger) -> None:
    reassembly = Reassembly(ledger, False)
    reassembly.add(parsed(packets(1))[0])
    ledger.now = 110.0
    reassembly.add(parsed(packets(2))[0])
    ledger.now = 130.0
    reassembly.age()
    assert len(reassembly.groups) == 1
    assert ledger.counters.secondary["aged_out"] == 1
    reassembly.age()
    assert ledger.counters.secondary["aged_out"] == 1


def test_unfinished_datagrams_of_the_secondary_are_bounded(ledger: Ledger) -> None:
    reassembly = Reassembly(ledger, False)
    for identification in range(1030):
        reassembly.add(parsed(packets(identification))[0])
    assert len(reassembly.groups) == 1024
    assert ledger.counters.secondary["overflow"] == 6


def test_clearing(ledger: Ledger) -> None:
    reassembly = Reassembly(ledger, False)
    for piece in parsed(packets(1))[:2]:
        reassembly.add(piece)
    assert reassembly.clear() == 2
    assert reassembly.frames() == []
    assert reassembly.clear() == 0


def test_everything_may_be_old(ledger: Ledger) -> None:
    reassembly = Reassembly(ledger, False)
    reassembly.add(parsed(packets(1))[0])
    ledger.now = 200.0
    reassembly.age()
    assert reassembly.groups == {}


def test_the_primarys_pieces_do_not_grow_old(ledger: Ledger) -> None:
    """They are held: a time-out asks for a checkpoint, and that lets them go."""
    reassembly = Reassembly(ledger, True)
    (piece, *_) = parsed(packets(1))
    reassembly.add(piece)
    ledger.now = 200.0
    reassembly.age()
    assert reassembly.frames() == [piece]


def test_what_has_passed_grows_old_and_counts_for_nothing() -> None:
    """In observe mode nothing of the primary is held."""
    ledger = Ledger(Settings(mode=OBSERVE, fragment_timeout=30.0), 100.0)
    reassembly = Reassembly(ledger, True)
    reassembly.add(parsed(packets(1))[0])
    assert ledger.holds.frames == 0
    ledger.now = 200.0
    reassembly.age()
    assert reassembly.groups == {}
    assert ledger.counters.secondary["aged_out"] == 0


@pytest.mark.parametrize("how", ["whole", "cleared", "dropped"])
def test_a_group_that_is_forgotten_lets_go_of_its_held_frames(ledger: Ledger, how: str) -> None:
    """Compiled, nobody else finds the circle of the two."""
    first, second, third = parsed(packets(1))
    reassembly = Reassembly(ledger, True)
    assert reassembly.add(first) is reassembly.add(second) is None
    (group,) = reassembly.groups.values()
    assert len(group.held) == 2
    if how == "whole":
        assert reassembly.add(third) is not None
    elif how == "cleared":
        assert reassembly.clear() == 2
    else:
        ledger.mode = OBSERVE
        ledger.now += 31.0
        reassembly.age()
    assert group.held == []
    assert reassembly.groups == {}
