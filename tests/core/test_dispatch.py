"""Each kind of frame finds its comparer, on every side, in every mode."""

import dataclasses
import math

import pytest

from colo_compare.core.dispatch import is_compared
from colo_compare.core.settings import BYPASS, OBSERVE, Settings
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.wire.frame import ACK, RST, VNET_HEADER_LEN, parse_frame
from tests import frames
from tests.conversation import Clock, Conversation, Packet
from tests.playbook import ANYTHING, Playbook

QUIET = Settings(mirror_retry=math.inf, announce=False)


@pytest.fixture
def play() -> Playbook:
    return Playbook(QUIET)


def compared(packet: Packet) -> bool:
    return is_compared(parse_frame(packet.data, packet.header_len, False))


def test_what_is_compared() -> None:
    p = Conversation(Clock(0.0)).primary
    p6 = Conversation(Clock(0.0), version=6).primary
    for packet in (
        p.datagram(b""), p.icmp(0, b""), p.other_ip(47, b"gre"), p6.icmp(129, b""), p.syn(),
        p.fragments(bytes(64), 1, (32,))[0], p.raw_ip(b"\x45truncated", 1), p.raw_ip(b"\x43" + bytes(40), 1),
        p.other_ip(6, b"short"),
    ):  # fmt: skip
        assert compared(packet), packet


def test_what_is_not() -> None:
    p = Conversation(Clock(0.0)).primary
    p6 = Conversation(Clock(0.0), version=6).primary
    for packet in (
        p.arp(), p.opaque(0x88CC, b""), p.opaque(0x0010, b""), p.opaque(0x8863, b""), p6.advertisement(),
        p6.icmp(131, bytes(16)), p.other_ip(2, bytes(8)),
    ):  # fmt: skip
        assert not compared(packet), packet


def test_igmp_reports_come_at_random_times(play: Playbook) -> None:
    """RFC 3376, section 5.2: so there is nothing to compare."""
    _, p, s = play.datagrams()
    play.secondary(s.other_ip(2, b"\x16" + bytes(7)))
    report = p.other_ip(2, b"\x16" + bytes(7))
    play.primary(report, releases=[report])


@pytest.mark.parametrize("side", [CLIENT, PRIMARY, SECONDARY])
def test_a_frame_shorter_than_its_own_header(play: Playbook, side: int) -> None:
    play.proxy.receive(side, [parse_frame(bytes(5), VNET_HEADER_LEN, side == CLIENT)], play.now)
    play.quiet()
    counters = play.proxy.counters
    assert counters.discarded["unusable"] == (side == PRIMARY)
    assert counters.received[side] == 1


@pytest.mark.parametrize("version", [4, 6])
def test_an_error_of_the_network_reaches_each_guest_with_its_own_numbers(
    play: Playbook, version: int
) -> None:
    """Path MTU discovery: the error quotes a segment that the client's side got, in the client's space."""
    c, p, s = play.connection(version=version, primary_isn=1000, secondary_isn=0xFFFFFF00)
    large = p.data(bytes(1400))
    play.both(large, s.data(bytes(1400)))
    quoted = large.data[14 : 14 + (20 if version == 4 else 40) + 8]
    error = c.icmp(3, quoted, code=4) if version == 4 else c.icmp(2, quoted)
    play.proxy.receive(CLIENT, [parse_frame(error.data, 0, True)], play.now)
    actions = play.proxy.take_actions()
    (to_primary,), (to_secondary,) = actions.to_primary, actions.to_secondary
    assert to_primary.data == error.data
    seen = frames.dissect(to_secondary.data)
    assert not seen.problems
    assert seen.payload[-4:] == ((0xFFFFFF00 + 1) & 0xFFFFFFFF).to_bytes(4, "big")


def test_an_error_about_something_else_goes_as_it_is(play: Playbook) -> None:
    c, _, _ = play.datagrams()
    play.client(c.icmp(3, b"\x45" + bytes(18), code=3))
    udp = frames.ipv4(bytes(8), 17, frames.GUEST_IP4, frames.CLIENT_IP4, 1)
    play.client(c.icmp(3, udp, code=3))
    unknown = frames.ipv4(bytes(8), 6, frames.GUEST_IP4, frames.CLIENT_IP4, 1)
    play.client(c.icmp(3, unknown, code=4))
    play.lose_secondary()
    play.client(c.icmp(3, unknown, code=4), unmirrored=True)


def test_something_else_mirrors() -> None:
    play = Playbook(dataclasses.replace(QUIET, mirror=False))
    c, _, s = play.datagrams()
    play.client(c.datagram(b"x"), c.opaque(0x0806, bytes(46)))
    play.secondary(s.arp())


def test_fragments_in_every_mode(play: Playbook) -> None:
    _, p, s = play.datagrams()
    held = p.fragments(bytes(64), 1, (32,))
    play.primary(*held)
    play.secondary(*s.fragments(bytes(64), 2, (32,)), releases=held)
    play.set_mode(OBSERVE)
    for piece in p.fragments(bytes(64), 3, (32,)):
        play.primary(piece, releases=[piece])
    play.secondary(*s.fragments(bytes(64), 4, (32,)))
    play.set_mode(BYPASS)
    for piece in p.fragments(bytes(64), 5, (32,)):
        play.primary(piece, releases=[piece])
    play.secondary(*s.fragments(bytes(64), 6, (32,)))
    assert play.proxy.counters.secondary["unprotected"] == 2


def test_a_fragmented_segment_of_a_promoted_guest_cannot_be_translated(play: Playbook) -> None:
    _, p, _ = play.connection()
    play.promote()
    piece = p.fragment(bytes(64), 1, 0, True, protocol=frames.TCP)
    play.proxy.receive(PRIMARY, [parse_frame(piece.data, 0, False)], play.now)
    play.quiet()
    assert play.proxy.counters.discarded["unrewritable"] == 1


def test_the_secondary_gets_an_answer_to_its_own_question(play: Playbook) -> None:
    c, _, s = play.datagrams()
    play.client(c.arp())
    play.proxy.receive(SECONDARY, [parse_frame(s.arp().data, 0, False)], play.now)
    actions = play.proxy.take_actions()
    assert (actions.to_client, actions.to_primary, len(actions.to_secondary)) == ([], [], 1)
    assert play.proxy.counters.neighbour_answers == 1
    play.secondary(s.opaque(0x88CC, bytes(46)))
    assert play.proxy.counters.secondary["not_compared"] == 2


def test_what_is_late_is_given_up_in_observe_mode() -> None:
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE))
    _, p, _ = play.datagrams()
    datagram = p.datagram(b"x")
    play.primary(datagram, releases=[datagram])
    piece, _ = p.fragments(bytes(64), 1, (32,))
    play.primary(piece, releases=[piece])
    c, p, s = play.tcp()
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.after(5.0)
    assert play.proxy.counters.divergences["timeout"] == 2
    play.secondary(s.syn_ack())


def test_what_a_client_that_has_reset_will_not_hear_is_dropped(play: Playbook) -> None:
    c, p, _ = play.connection()
    play.primary(p.data(b"x"), p.data(b"y"))
    play.client(c.segment(RST))
    play.after(4.0)
    assert play.proxy.counters.discarded["client_reset"] == 2
    assert not any(play.proxy.counters.divergences.values())
    assert play.proxy.flow_count == 0


@pytest.mark.parametrize("off", [-1, 1])
def test_a_reset_that_no_guest_believes_drops_nothing(play: Playbook, off: int) -> None:
    c, p, _ = play.connection()
    play.primary(p.data(b"x"))
    play.client(c.segment(RST, at=c.nxt + off))
    play.after(4.0, requests=["timeout"])
    assert play.proxy.counters.discarded["client_reset"] == 0


def test_a_client_that_speaks_on_has_not_reset(play: Playbook) -> None:
    c, p, _ = play.connection()
    play.primary(p.data(b"x"))
    play.client(c.segment(RST), c.segment(ACK))
    play.after(4.0, requests=["timeout"])
    assert play.proxy.counters.discarded["client_reset"] == 0


def test_datagrams_of_the_client(play: Playbook) -> None:
    c, _, _ = play.datagrams()
    play.client(c.datagram(b"both"))
    play.lose_secondary()
    play.client(c.datagram(b"one"), unmirrored=True)


def test_held_fragments_are_covered_by_a_commit(play: Playbook) -> None:
    _, p, _ = play.datagrams()
    piece, _ = p.fragments(bytes(64), 1, (32,))
    datagram = p.datagram(b"x")
    _, p2, _ = play.connection()
    data = p2.data(b"y")
    play.primary(piece, datagram, data)
    play.checkpoint(releases=[piece, datagram, data])
    assert play.proxy.counters.released["covered"] == 3


def test_unmatched_frames_of_the_secondary(play: Playbook) -> None:
    _, _, s = play.connection()
    _, _, s2 = play.datagrams()
    play.secondary(s.data(b"one"), s2.datagram(b"two"), *s2.fragments(bytes(64), 1, (32,))[:1])
    counters = play.proxy.counters
    assert counters.received[SECONDARY] - counters.secondary["compared"] == 3


def test_what_the_client_claims_does_not_come_back(play: Playbook) -> None:
    c, _, _ = play.datagrams()
    play.client(c.arp(), releases=ANYTHING)
