"""Rule 4: what is not compared passes from the primary at once; the secondary's is discarded."""

import pytest

from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.wire.frame import OPAQUE_REASONS, parse_frame
from tests import frames
from tests.playbook import Playbook


@pytest.fixture
def play() -> Playbook:
    return Playbook()


ETHERTYPES = {
    0x0806: "arp",
    0x88CC: "link_control",
    0x0026: "link_control",
    0x8863: "non_ip",
    0x0842: "non_ip",
}


@pytest.mark.parametrize(("ethertype", "reason"), ETHERTYPES.items())
@pytest.mark.parametrize("vlans", [(), (3,)])
def test_frames_that_are_not_ip(play: Playbook, ethertype: int, reason: str, vlans: tuple[int, ...]) -> None:
    c, p, s = play.datagrams(vlans=vlans)
    play.secondary(s.opaque(ethertype, bytes(46)))
    frame = p.opaque(ethertype, bytes(46))
    play.primary(frame, releases=[frame])
    play.client(c.opaque(ethertype, bytes(46)))
    counters = play.proxy.counters
    assert counters.opaque[OPAQUE_REASONS.index(reason)] == 3
    assert counters.released["not_compared"] == 1
    assert counters.secondary["not_compared"] == 1


@pytest.mark.parametrize("kind", [*range(130, 138), 143])
def test_neighbour_discovery_and_multicast_listeners(play: Playbook, kind: int) -> None:
    c, p, s = play.datagrams(version=6)
    play.secondary(s.icmp(kind, bytes(20)))
    frame = p.icmp(kind, bytes(20))
    play.primary(frame, releases=[frame])
    play.client(c.icmp(kind, bytes(20)))
    assert play.proxy.counters.secondary["not_compared"] == 1


def test_they_do_not_wait_behind_held_frames(play: Playbook) -> None:
    _, p, _ = play.connection()
    play.primary(p.data(b"held"))
    frame = p.opaque(0x0806, bytes(46))
    play.primary(frame, releases=[frame])


def test_malformed_ip_is_compared_whole(play: Playbook) -> None:
    """It claims to be IP, so it is somebody's word to somebody: it needs the same of the other guest."""
    _, p, s = play.datagrams()
    play.connection()
    bad = bytearray(frames.ipv4(b"payload of nothing", 17, frames.GUEST_IP4, frames.CLIENT_IP4, 99))
    bad[0] = 0x43
    packet = p.raw_ip(bytes(bad), 99)
    play.primary(packet)
    play.secondary(s.raw_ip(bytes(bad), 99), releases=[packet])


def test_a_runt_from_any_side_harms_nobody(play: Playbook) -> None:
    before = play.proxy.counters.received[:]
    for side in (CLIENT, PRIMARY, SECONDARY):
        for length in range(14):
            play.proxy.receive(side, [parse_frame(bytes(length), 0, side == CLIENT)], play.now)
            play.proxy.take_actions()
    assert [now - then for now, then in zip(play.proxy.counters.received, before, strict=True)] == [
        14,
        14,
        14,
    ]
    play.connection()


def test_they_pass_before_the_first_checkpoint_and_during_one() -> None:
    play = Playbook(protected=False)
    _, p, s = play.datagrams()
    early = p.opaque(0x0806, bytes(46))
    play.primary(early, releases=[early])
    play.secondary(s.opaque(0x0806, bytes(46)))
    play.pause()
    paused = p.opaque(0x0806, bytes(46))
    play.primary(paused, releases=[paused])
    play.commit()
