"""Numbers in translation: seq, ack, SACK blocks, TSval, TSecr and checksums, for either guest, both ways.

Each mirrored and each released frame is checked by the playbook against the numbers of the guest or client
that gets it; a test here brings a situation about.
"""

import math

import pytest

from colo_compare.core.settings import Settings
from tests.frames import ACK, FIN, PSH
from tests.playbook import ANYTHING, Playbook

QUIET = Settings(mirror_retry=math.inf, announce=False)


@pytest.fixture
def play() -> Playbook:
    return Playbook(QUIET)


EDGES = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF]


@pytest.mark.parametrize("primary", EDGES)
@pytest.mark.parametrize("secondary", EDGES)
def test_any_two_initial_sequence_numbers(play: Playbook, primary: int, secondary: int) -> None:
    c, p, s = play.connection(primary_isn=primary, secondary_isn=secondary)
    play.client(c.data(b"request"))
    play.both(p.data(b"answer"), s.data(b"answer"))
    play.client(c.segment(ACK, ack=1, blocks=((3, 7),)))
    play.client(c.ack())
    play.client(c.segment(FIN | ACK, b"bye"))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("vlans", [(), (3,), (4, 3)])
@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("header_len", [0, 12])
def test_every_kind_of_frame(
    play: Playbook, version: int, vlans: tuple[int, ...], times: bool, header_len: int
) -> None:
    c, p, s = play.connection(version=version, vlans=vlans, times=times, header_len=header_len)
    play.client(c.data(b"odd"))
    play.client(c.data(b"even"))
    play.both(p.data(b"odd"), s.data(b"odd"))
    play.client(c.segment(ACK, ack=1, blocks=((2, 4),)))
    play.promote()
    for payload in (b"odd", b"even", b""):
        frame = s.segment(PSH | ACK, payload)
        play.primary(frame, releases=[frame])
    play.client(c.segment(ACK, b"last", blocks=((6, 9), (11, 12), (14, 15))), unmirrored=True)


def test_the_echo_in_the_third_ack_is_the_secondarys_own(play: Playbook) -> None:
    c, _, _ = play.connection(primary_clock=5, secondary_clock=0xFFF00000)
    play.client(c.data(b"x"))


def test_the_echo_when_the_primary_repeated_its_syn_ack(play: Playbook) -> None:
    """The client echoes the newest; the secondary sent one only."""
    c, p, s = play.tcp()
    play.client(c.syn())
    play.both(p.syn_ack(), s.syn_ack())
    play.after(1.0)
    again = p.syn_ack()
    play.primary(again, releases=[again])
    play.client(c.ack())


def test_the_echo_when_the_secondary_repeated_its_syn_ack(play: Playbook) -> None:
    c, p, s = play.tcp()
    play.client(c.syn())
    play.secondary(s.syn_ack())
    play.after(1.0)
    play.secondary(s.syn_ack())
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.client(c.ack())


def test_a_client_without_timestamps(play: Playbook) -> None:
    c, p, s = play.connection(times=False)
    play.client(c.data(b"x"))
    play.both(p.data(b"y"), s.data(b"y"))


def test_a_reset_of_the_client_without_an_ack_is_not_touched(play: Playbook) -> None:
    c, _, _ = play.connection()
    play.client(c.segment(0x04))


def test_a_reset_of_the_client_in_answer_to_an_unwanted_syn_ack(play: Playbook) -> None:
    """It has the client's numbers from the ACK field, and none of its own."""
    c, _, _ = play.connection()
    play.client(c.segment(0x04, at=1))


def test_padding_and_an_ip_header_with_another_tos_survive(play: Playbook) -> None:
    c, _, _ = play.connection(times=False)
    play.client(c.segment(ACK, tos=0x2E, ttl=3, pad=True))


def test_a_guest_initiated_flow_both_ways(play: Playbook) -> None:
    c, p, s = play.tcp(client_port=443, guest_port=50000, primary_isn=0xFFFFFFFF, secondary_isn=12)
    play.both(p.syn(), s.syn())
    play.client(c.syn_ack())
    play.both(p.data(b"hello"), s.data(b"hello"))
    play.client(c.segment(PSH | ACK, b"welcome", blocks=((9, 12),)))
    play.promote()
    more = s.data(b"more")
    play.primary(more, releases=[more])
    play.client(c.ack(), unmirrored=True)


def test_a_client_ack_that_comes_before_the_secondarys_syn_ack_waits_for_its_number(play: Playbook) -> None:
    """A checkpoint released the primary's SYN-ACK... and then the pair is equal: nothing to wait for."""
    c, p, _ = play.tcp()
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack)
    play.checkpoint(releases=[syn_ack])
    play.client(c.ack())
    play.client(c.data(b"x"))


def test_options_that_are_no_timestamps_survive_a_rewrite(play: Playbook) -> None:
    c, _, s = play.connection(times=False)
    play.client(c.segment(ACK, other=b"\xfe\x04ab"))
    play.promote()
    frame = s.segment(ACK, other=b"\xfe\x04ab")
    play.primary(frame, releases=[frame])


def test_two_failovers_add_up(play: Playbook) -> None:
    c, p, s = play.connection(primary_isn=0xFFFFFFF0, secondary_isn=100, primary_clock=0xFFFFFF00 - 1_000_000)
    for _ in range(3):
        play.both(p.data(b"one"), s.data(b"one"))
        play.client(c.data(b"request"))
        play.client(c.segment(ACK, ack=1, blocks=((2, 3),)))
        play.after(0.1)
        play.promote()
        (new,) = play.protect_again()
        p, s = s, new


def test_an_echo_of_zero_stays_zero_or_is_known(play: Playbook) -> None:
    c, p, s = play.tcp()
    play.client(c.syn())
    play.both(p.syn_ack(), s.syn_ack())
    play.client(c.segment(ACK, tsecr=0))


def test_copies_of_one_handshake_share_a_clock(play: Playbook) -> None:
    """A half-open flow that was opened unprotected: after the commit both guests repeat one SYN-ACK.

    Their clocks differ by a pause only; the echo of what the client heard is what both have sent.
    """
    play.lose_secondary()
    c, p, _ = play.tcp()
    play.client(c.syn(), unmirrored=True)
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    ack = c.ack()
    (s,) = play.protect_again()
    s.clock -= 190  # it stood still for so long
    play.after(0.2)
    play.primary(p.syn_ack(), releases=ANYTHING)
    play.secondary(s.syn_ack(), releases=ANYTHING)
    play.client(ack)
