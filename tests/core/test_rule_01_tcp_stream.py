"""Rule 1: TCP payload is one byte stream, whatever the segments that bring it."""

import pytest

from colo_compare.core.actions import Divergence
from tests.playbook import Playbook

HELLO = b"hello, world"


@pytest.fixture
def play() -> Playbook:
    return Playbook()


def test_a_byte_goes_out_once_the_secondary_said_the_same(play: Playbook) -> None:
    _, p, s = play.connection()
    hello = p.data(HELLO)
    play.primary(hello)
    play.secondary(s.data(HELLO), releases=[hello])


def test_a_secondary_that_is_first_makes_nobody_wait(play: Playbook) -> None:
    _, p, s = play.connection()
    play.secondary(s.data(HELLO))
    hello = p.data(HELLO)
    play.primary(hello, releases=[hello])


def test_nothing_of_the_secondary_reaches_the_client(play: Playbook) -> None:
    _, _, s = play.connection()
    play.secondary(s.data(HELLO), s.data(b"more"))


def test_a_large_segment_matches_many_small_ones(play: Playbook) -> None:
    _, p, s = play.connection()
    hello = p.data(HELLO)
    play.primary(hello)
    for byte in HELLO[:-1]:
        play.secondary(s.data(bytes((byte,))))
    play.secondary(s.data(HELLO[-1:]), releases=[hello])


def test_small_segments_match_a_large_one_one_by_one(play: Playbook) -> None:
    _, p, s = play.connection()
    play.secondary(s.data(HELLO))
    for byte in HELLO:
        piece = p.data(bytes((byte,)))
        play.primary(piece, releases=[piece])


def test_segments_that_share_no_border(play: Playbook) -> None:
    _, p, s = play.connection()
    first, second, third = p.data(HELLO[:5]), p.data(HELLO[5:8]), p.data(HELLO[8:])
    play.primary(first, second, third)
    play.secondary(s.data(HELLO[:4]))
    play.secondary(s.data(HELLO[4:7]), releases=[first])
    play.secondary(s.data(HELLO[7:]), releases=[second, third])


def test_reordered_by_the_secondary(play: Playbook) -> None:
    _, p, s = play.connection()
    first, second = p.data(HELLO[:5]), p.data(HELLO[5:])
    play.primary(first, second)
    one, two = s.data(HELLO[:5]), s.data(HELLO[5:])
    play.secondary(two)
    play.secondary(one, releases=[first, second])


def test_reordered_by_the_primary_goes_out_as_it_came(play: Playbook) -> None:
    _, p, s = play.connection()
    first, second = p.data(HELLO[:5]), p.data(HELLO[5:])
    play.primary(second)
    play.primary(first)
    play.secondary(s.data(HELLO), releases=[second, first])


def test_a_hole_of_the_secondary_keeps_what_lies_in_it_only(play: Playbook) -> None:
    _, p, s = play.connection()
    first = p.data(HELLO[:5])
    play.primary(first)
    lost = s.data(HELLO[:5])
    play.secondary(s.data(HELLO[5:]))
    play.secondary(lost, releases=[first])


def test_a_retransmission_of_the_primary_is_released_again(play: Playbook) -> None:
    _, p, s = play.connection()
    hello = p.data(HELLO)
    play.both(hello, s.data(HELLO))
    again = p.data(HELLO, at=1)
    play.primary(again, releases=[again])


def test_a_retransmission_before_the_match_waits_too(play: Playbook) -> None:
    _, p, s = play.connection()
    hello, again = p.data(HELLO), p.data(HELLO, at=1)
    play.primary(hello, again)
    play.secondary(s.data(HELLO), releases=[hello, again])


def test_a_retransmission_of_the_secondary_matches_nothing_twice(play: Playbook) -> None:
    _, p, s = play.connection()
    hello = p.data(HELLO)
    play.both(hello, s.data(HELLO))
    play.secondary(s.data(HELLO, at=1))
    more = p.data(HELLO)
    play.primary(more)
    play.secondary(s.data(HELLO), releases=[more])


def test_a_retransmission_may_coalesce_old_and_new(play: Playbook) -> None:
    _, p, s = play.connection()
    first = p.data(HELLO[:5])
    play.both(first, s.data(HELLO[:5]))
    whole = p.data(HELLO, at=1)
    play.primary(whole)
    play.secondary(s.data(HELLO, at=1), releases=[whole])


def test_overlapping_segments_on_both_sides(play: Playbook) -> None:
    _, p, s = play.connection()
    first, second = p.data(HELLO[:8], at=1), p.data(HELLO[4:], at=5)
    play.primary(second, first)
    play.secondary(s.data(HELLO[2:10], at=3))
    play.secondary(s.data(HELLO[8:], at=9))
    play.secondary(s.data(HELLO[:3], at=1), releases=[second, first])


def test_duplicates_on_both_sides(play: Playbook) -> None:
    _, p, s = play.connection()
    hello, twin = p.data(HELLO), p.data(HELLO, at=1)
    play.primary(hello, twin)
    play.secondary(s.data(HELLO), s.data(HELLO, at=1), releases=[hello, twin])
    play.secondary(s.data(HELLO, at=1))


def test_a_different_byte_is_a_divergence_at_its_place(play: Playbook) -> None:
    _, p, s = play.connection()
    play.primary(p.data(b"hello"))
    play.secondary(s.data(b"hellO"), requests=["payload"])
    found = [event for event in play.events if isinstance(event, Divergence)]
    assert [(event.reason, event.offset, event.epoch) for event in found] == [("payload", 4, 1)]
    assert (found[0].primary, found[0].secondary) == (b"o", b"O")


def test_what_agreed_before_a_difference_stays_released(play: Playbook) -> None:
    _, p, s = play.connection()
    first, second = p.data(b"hel"), p.data(b"lo")
    play.primary(first, second)
    play.secondary(s.data(b"hel"), releases=[first])
    play.secondary(s.data(b"Lo"), requests=["payload"])
    assert play.held == [second]


def test_a_difference_that_the_secondary_said_first(play: Playbook) -> None:
    _, p, s = play.connection()
    play.secondary(s.data(b"hellO"))
    play.primary(p.data(b"hello"), requests=["payload"])


def test_a_difference_behind_a_hole_shows_when_the_hole_is_filled(play: Playbook) -> None:
    _, p, s = play.connection()
    play.primary(p.data(b"hello"))
    hole = s.data(b"hel")
    play.secondary(s.data(b"LO"))
    play.secondary(hole, requests=["payload"])


def test_a_longer_answer_of_the_secondary_is_no_divergence_yet(play: Playbook) -> None:
    _, p, s = play.connection()
    hello = p.data(b"hello")
    play.primary(hello)
    play.secondary(s.data(b"hello and more"), releases=[hello])
    more = p.data(b" and more")
    play.primary(more, releases=[more])


@pytest.mark.parametrize("isn", [0xFFFFFFF0, 0xFFFFFFFF, 0, 0x7FFFFFF8])
@pytest.mark.parametrize("whose", ["client", "primary", "secondary", "all"])
def test_sequence_numbers_that_wrap(play: Playbook, isn: int, whose: str) -> None:
    c, p, s = play.connection(
        client_isn=isn if whose in ("client", "all") else 100,
        primary_isn=isn if whose in ("primary", "all") else 10_000,
        secondary_isn=isn if whose in ("secondary", "all") else 50_000,
    )
    for _ in range(4):
        play.client(c.data(HELLO))
        first, second = p.data(HELLO[:7]), p.data(HELLO[7:])
        play.primary(second, first)
        play.secondary(s.data(HELLO[:3]))
        play.secondary(s.data(HELLO[3:]), releases=[second, first])
        play.client(c.ack())


def test_a_segment_that_wraps_in_its_middle_may_diverge_behind(play: Playbook) -> None:
    _, p, s = play.connection(primary_isn=0xFFFFFFFC, secondary_isn=5)
    play.primary(p.data(b"hello"))
    play.secondary(s.data(b"hellO"), requests=["payload"])


def test_a_keep_alive_probe_repeats_one_byte_with_any_contents(play: Playbook) -> None:
    _, p, s = play.connection()
    play.both(p.data(HELLO), s.data(HELLO))
    probe = p.data(b"\0", at=len(HELLO))
    play.primary(probe, releases=[probe])
    play.secondary(s.data(b"\xff", at=len(HELLO)))


def test_a_keep_alive_probe_without_a_byte(play: Playbook) -> None:
    c, p, s = play.connection()
    play.both(p.data(HELLO), s.data(HELLO))
    play.client(c.ack())
    probe = p.ack(at=len(HELLO))
    play.primary(probe, releases=[probe])
    play.client(c.ack())


def test_a_probe_of_a_zero_window_is_payload(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.ack(window=0))
    probe = p.data(b"h")
    play.primary(probe)
    play.secondary(s.data(b"h"), releases=[probe])
    again = p.data(b"h", at=1)
    play.primary(again, releases=[again])


def test_urgent_data_is_payload(play: Playbook) -> None:
    _, p, s = play.connection()
    urgent = p.segment(0x38, b"ab!", urgent=3)
    play.primary(urgent)
    play.secondary(s.data(b"ab"))
    play.secondary(s.segment(0x38, b"!", urgent=1), releases=[urgent])


def test_two_flows_do_not_mix(play: Playbook) -> None:
    _, p, s = play.connection(client_port=40000)
    _, p2, s2 = play.connection(client_port=40001)
    one, two = p.data(HELLO), p2.data(HELLO)
    play.primary(one, two)
    play.secondary(s2.data(HELLO), releases=[two])
    play.secondary(s.data(HELLO), releases=[one])


@pytest.mark.parametrize(("version", "vlans"), [(6, ()), (4, (5,)), (4, (9, 5)), (6, (9, 5))])
def test_over_ipv6_and_vlans(play: Playbook, version: int, vlans: tuple[int, ...]) -> None:
    c, p, s = play.connection(version=version, vlans=vlans)
    play.client(c.data(HELLO))
    hello = p.data(HELLO)
    play.primary(hello)
    play.secondary(s.data(HELLO[:5]))
    play.secondary(s.data(HELLO[5:]), releases=[hello])
    play.primary(p.data(b"x"))
    play.secondary(s.data(b"y"), requests=["payload"])


def test_the_same_ports_in_two_vlans_are_two_flows(play: Playbook) -> None:
    _, p, s = play.connection(vlans=(1,))
    _, p2, s2 = play.connection(vlans=(2,))
    one = p.data(HELLO)
    play.primary(one)
    play.secondary(s2.data(b"other"))
    play.secondary(s.data(HELLO), releases=[one])
    two = p2.data(b"other")
    play.primary(two, releases=[two])


def test_padding_of_short_frames_is_not_payload(play: Playbook) -> None:
    _, p, s = play.connection(times=False)
    padded = p.segment(0x18, b"hi", pad=True)
    play.primary(padded)
    play.secondary(s.data(b"hi"), releases=[padded])
    more = p.data(b"!")
    play.primary(more)
    play.secondary(s.segment(0x18, b"!", pad=True), releases=[more])


def test_type_of_service_and_time_to_live_do_not_count(play: Playbook) -> None:
    _, p, s = play.connection()
    hello = p.segment(0x18, HELLO, tos=0x10, ttl=63)
    play.primary(hello)
    play.secondary(s.segment(0x18, HELLO, tos=0, ttl=255), releases=[hello])


def test_the_push_flag_does_not_count(play: Playbook) -> None:
    _, p, s = play.connection()
    hello = p.segment(0x18, HELLO)
    play.primary(hello)
    play.secondary(s.segment(0x10, HELLO), releases=[hello])


def test_a_frame_of_64_kibibytes_matches_segments(play: Playbook) -> None:
    _, p, s = play.connection(header_len=12)
    large = bytes(range(256)) * 250
    frame = p.data(large)
    play.primary(frame)
    for start in range(0, len(large) - 1460, 1460):
        play.secondary(s.data(large[start : start + 1460], at=1 + start))
    play.secondary(s.data(large[start + 1460 :], at=1 + start + 1460), releases=[frame])


def test_a_hole_of_the_primary_does_not_keep_what_is_matched(play: Playbook) -> None:
    _, p, s = play.connection()
    play.secondary(s.data(HELLO))
    lost = p.data(HELLO[:5])
    second = p.data(HELLO[5:])
    play.primary(second, releases=[second])
    play.primary(lost, releases=[lost])


def test_the_beginning_of_a_large_frame_does_not_wait_for_its_end(play: Playbook) -> None:
    """Else a secondary whose window is the smaller one would wait for an acknowledgement that never comes."""
    c, p, s = play.connection()
    large = p.data(HELLO * 100)
    play.primary(large)
    play.secondary(s.data(HELLO * 50))
    play.after(0.01, parts=[(large, 1 + 600)])
    play.client(c.ack())
    play.secondary(s.data(HELLO * 25))
    play.after(0.01, parts=[(large, 1 + 900)])
    play.secondary(s.data(HELLO * 25), releases=[large])
    play.client(c.ack())
