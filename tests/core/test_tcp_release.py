"""When a frame goes, what it looks like then, and what of it."""

import dataclasses
import math

import pytest

from colo_compare.core.settings import OBSERVE, Settings
from tests.conversation import Endpoint
from tests.frames import ACK, FIN, PSH, RST
from tests.playbook import ANYTHING, Playbook

QUIET = Settings(mirror_retry=math.inf, announce=False)
TEXT = bytes(range(256)) * 8


@pytest.fixture
def play() -> Playbook:
    return Playbook(QUIET)


def observed() -> tuple[Playbook, Endpoint, Endpoint, Endpoint]:
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE))
    c, p, s = play.tcp()
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.secondary(s.syn_ack())
    play.client(c.ack())
    return play, c, p, s


# What differs


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [(b"a", b"b", "payload"), (b"FIN", b"more", "fin"), (b"more", b"FIN", "fin"), (b"more", b"RST", "rst")],
)
def test_each_difference_has_its_reason(play: Playbook, ours: bytes, theirs: bytes, reason: str) -> None:
    _, p, s = play.connection()
    first = {b"FIN": p.fin, b"RST": p.rst}.get(ours, lambda: p.data(ours))()
    second = {b"FIN": s.fin, b"RST": s.rst}.get(theirs, lambda: s.data(theirs))()
    play.primary(first)
    play.secondary(second, requests=[reason])
    play.secondary(s.data(b"again"))
    assert play.held == [first]


def test_two_fins_at_different_places(play: Playbook) -> None:
    _, p, s = play.connection()
    play.primary(p.fin(b"long answer"))
    play.secondary(s.fin(b"long"), requests=["fin"])


def test_a_lost_fin_of_the_secondary_is_no_difference(play: Playbook) -> None:
    """What follows it tells by its number that there was something."""
    _, p, s = play.connection()
    last = p.fin(b"last")
    play.primary(last)
    play.secondary(s.data(b"last"))
    lost = s.fin()
    play.secondary(s.ack())
    assert play.held == [last]
    play.secondary(lost, releases=[last])


def test_a_lost_fin_of_the_primary_is_no_difference(play: Playbook) -> None:
    _, p, s = play.connection()
    last = p.data(b"last")
    play.primary(last)
    play.secondary(s.fin(b"last"), releases=[last])
    lost = p.fin()
    after = p.ack()
    play.primary(after, releases=[after])
    play.primary(lost, releases=[lost])


def test_a_fin_that_one_guest_has_not_come_to_yet(play: Playbook) -> None:
    _, p, s = play.connection()
    one, two = p.data(b"one"), p.fin(b"two")
    play.primary(one)
    play.secondary(s.fin(b"onetwo"), releases=[one])
    play.primary(two, releases=[two])


def test_a_reset_of_the_secondary_with_data_that_the_primary_has_still_to_say(play: Playbook) -> None:
    _, p, s = play.connection()
    play.secondary(s.data(b"last words"), s.rst())
    words = p.data(b"last words")
    play.primary(words, releases=[words])
    rst = p.rst()
    play.primary(rst, releases=[rst])


def test_after_a_reset_of_both_nothing_differs(play: Playbook) -> None:
    _, p, s = play.connection()
    play.both(p.rst(), s.rst())
    play.primary(p.rst(at=1), releases=ANYTHING)
    play.secondary(s.data(b"late"))


def test_observe_goes_on_from_where_the_primary_is() -> None:
    play, _, p, s = observed()
    for ours, theirs in ((b"aa", b"bb"), (b"same", b"same"), (b"cc", b"dd")):
        frame = p.data(ours)
        play.primary(frame, releases=[frame])
        play.secondary(s.data(theirs))
    assert play.proxy.counters.divergences["payload"] == 2
    assert play.proxy.counters.compared_bytes == 4


def test_observe_compares_nothing_whose_numbers_are_unknown() -> None:
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE))
    _, p, s = play.tcp()
    for end in (p, s):
        end.nxt, end.rcv = 500, 500
    for _ in range(3):
        frame = p.data(b"x")
        play.primary(frame, releases=[frame])
        play.secondary(s.data(b"y"))
    play.after(10.0)
    assert not any(play.proxy.counters.divergences.values())


# Holes


def test_what_lies_beyond_a_hole_of_the_primary(play: Playbook) -> None:
    _, p, s = play.connection()
    play.secondary(s.data(b"onetwothree"), s.fin())
    lost = p.data(b"one")
    two, last = p.data(b"two"), p.fin(b"three")
    play.primary(two, releases=[two])
    play.primary(last, releases=[last])
    play.primary(lost, releases=[lost])


def test_a_fin_beyond_a_hole_that_the_secondary_has_not_said(play: Playbook) -> None:
    _, p, s = play.connection()
    play.secondary(s.data(b"onetwo"))
    lost, fin = p.data(b"one"), p.fin(b"two")
    play.primary(fin)
    play.secondary(s.fin(), releases=[fin])
    play.primary(lost, releases=[lost])


def test_a_syn_is_no_such_thing(play: Playbook) -> None:
    _, p, s = play.tcp(client_port=443, guest_port=50000)
    syn = p.syn()
    play.primary(syn)
    play.secondary(s.segment(PSH | ACK, b"early", at=1, ack=0))
    play.secondary(s.syn(), releases=[syn])


# Overtaking


def test_a_repetition_does_not_wait_behind_news(play: Playbook) -> None:
    """The secondary says the news only when the client has acknowledged what is repeated here."""
    _, p, s = play.connection()
    first = p.data(b"first")
    play.both(first, s.data(b"first"))
    news = p.data(b"news")
    play.primary(news)
    again = p.data(b"first", at=1)
    play.primary(again, releases=[again])
    assert play.proxy.counters.overtaking == 1
    play.secondary(s.data(b"news"), releases=[news])


def test_acknowledgements_keep_their_own_order(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.data(b"one"), c.data(b"two"))
    two, one = p.ack(7), p.ack(4)
    play.primary(two)
    play.primary(one)
    play.secondary(s.ack(4))
    play.secondary(s.ack(7), releases=[two, one])


def test_what_may_go_at_once_goes_as_it_came(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.data(b"request"))
    ack, answer, again = p.ack(), p.data(b"answer"), p.ack()
    play.primary(ack, answer, again)
    play.secondary(s.data(b"answer"), releases=[ack, answer, again])


# Parts


def test_the_part_that_is_matched_goes_after_a_while(play: Playbook) -> None:
    c, p, s = play.connection()
    large = p.data(TEXT)
    play.primary(large)
    play.secondary(s.data(TEXT[:500]))
    play.after(0.0019)
    play.after(0.001, parts=[(large, 501)])
    assert play.proxy.held_frames == 1
    assert play.proxy.held_bytes < len(large.data) - 400
    play.client(c.ack())
    play.secondary(s.data(TEXT[500:]), releases=[large])
    assert play.proxy.counters.split == 1


def test_a_part_goes_only_with_what_it_acknowledges(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.data(b"request"))
    large = p.data(TEXT)
    play.primary(large)
    play.secondary(s.data(TEXT[:500], ack=1))
    play.after(1.0)
    play.secondary(s.ack(8), releases=())
    play.after(0.01, parts=[(large, 501)])


def test_two_flows_with_parts_go_each_at_its_time(play: Playbook) -> None:
    _, p, s = play.connection(client_port=1)
    _, p2, s2 = play.connection(client_port=2)
    one, two = p.data(TEXT), p2.data(TEXT)
    play.primary(one, two)
    play.secondary(s.data(TEXT[:100]))
    play.after(0.001)
    play.secondary(s2.data(TEXT[:100]))
    play.after(0.0015, parts=[(one, 101)])
    play.after(0.001, parts=[(two, 101)])


def test_a_part_that_was_matched_whole_in_time_is_not_cut(play: Playbook) -> None:
    _, p, s = play.connection()
    large = p.data(TEXT)
    play.primary(large)
    play.secondary(s.data(TEXT[:500]))
    play.after(0.001)
    play.secondary(s.data(TEXT[500:]), releases=[large])
    play.after(1.0)
    assert play.proxy.counters.split == 0


def test_a_part_of_a_flow_that_diverged_stays(play: Playbook) -> None:
    _, p, s = play.connection()
    large = p.data(TEXT)
    play.primary(large)
    play.secondary(s.data(TEXT[:500]))
    play.secondary(s.data(b"something else"), requests=["payload"])
    play.fail()
    play.after(0.4)
    assert play.held == [large]


def test_a_part_with_a_fin_and_a_secondary_that_was_first(play: Playbook) -> None:
    _, p, s = play.connection()
    play.secondary(s.data(TEXT[:500]))
    last = p.fin(TEXT)
    play.primary(last)
    play.after(0.01, parts=[(last, 501)])
    play.secondary(s.fin(TEXT[500:]), releases=[last])


def test_a_commit_covers_the_rest_of_a_part(play: Playbook) -> None:
    c, p, s = play.connection()
    large = p.data(TEXT)
    play.primary(large)
    play.secondary(s.data(TEXT[:500]))
    play.after(0.01, parts=[(large, 501)])
    play.checkpoint(releases=[large])
    play.client(c.ack())


def test_a_part_is_not_seen_again_after_a_death(play: Playbook) -> None:
    c, p, s = play.connection()
    large = p.data(TEXT)
    play.primary(large)
    mine = s.data(TEXT[:500])
    play.secondary(mine)
    play.after(0.01, parts=[(large, 501)])
    play.promote(discards=[large])
    rest = s.data(b"another end")
    play.primary(rest, releases=[rest])
    play.client(c.ack(), unmirrored=True)


def test_a_flow_that_held_a_part_and_holds_it_no_more(play: Playbook) -> None:
    _, p, s = play.connection()
    large = p.data(TEXT)
    play.primary(large)
    play.secondary(s.data(TEXT[:500]))
    play.checkpoint(releases=[large])
    play.after(1.0)


# Windows


def test_a_window_is_opened_in_worthwhile_steps(play: Playbook) -> None:
    c, p, s = play.connection(scale=0, syn_window=1)
    play.client(c.data(b"x"))
    play.secondary(s.ack(window=8000))
    ack = p.ack(window=20_000)
    play.primary(ack, releases=[ack])
    assert play.offer(c) == 2 + 8000
    play.secondary(s.ack(window=9000))
    play.secondary(s.ack(window=12_000), updates=[c])
    assert play.offer(c) == 2 + 12_000
    play.secondary(s.ack(window=12_000))
    play.secondary(s.ack(window=20_000), updates=[c])
    play.secondary(s.ack(window=30_000))


def test_a_window_is_whole_again_without_a_secondary(play: Playbook) -> None:
    c, p, s = play.connection(scale=0, syn_window=1)
    play.client(c.data(b"x"))
    play.secondary(s.ack(window=0))
    ack = p.ack(window=20_000)
    play.primary(ack, releases=[ack])
    play.lose_secondary(updates=[c])
    assert play.offer(c) == 2 + 20_000


def test_a_window_is_not_opened_behind_frames_that_wait(play: Playbook) -> None:
    c, p, s = play.connection(scale=0, syn_window=1)
    play.client(c.data(b"x"))
    play.secondary(s.ack(window=0))
    ack = p.ack(window=20_000)
    play.primary(ack, releases=[ack])
    news = p.data(b"news", window=20_000)
    play.primary(news)
    play.secondary(s.ack(window=15_000))
    play.secondary(s.data(b"news", window=15_000), releases=[news])
    assert play.offer(c) == 2 + 15_000


def test_a_window_of_a_stream_whose_scale_is_unknown() -> None:
    """Picked up in mid-stream: both guests scale alike, so the numbers on the wire can be compared."""
    play = Playbook(QUIET, protected=False)
    c, p, s = play.tcp()
    for end in (c, p, s):
        end.nxt, end.rcv = 500, 500
    play.pause()
    play.commit()
    play.secondary(s.data(b"x", window=10))
    frame = p.data(b"x", window=20)
    play.primary(frame, releases=[frame])
    assert play.offer(c) == 500 + (10 << 7)


def test_a_reset_has_no_window_to_speak_of(play: Playbook) -> None:
    _, p, s = play.connection()
    play.secondary(s.segment(RST | ACK, window=0))
    rst = p.segment(RST | ACK, window=100)
    play.primary(rst, releases=[rst])


def test_numbers_after_a_promotion(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.data(b"request"))
    play.both(p.data(b"one"), s.data(b"one"))
    play.promote()
    for flags, payload in ((ACK, b""), (PSH | ACK, b"two"), (FIN | ACK, b"three"), (RST | ACK, b"")):
        frame = s.segment(flags, payload)
        play.primary(frame, releases=[frame])
    assert play.proxy.counters.rewritten >= 4


def test_a_repetition_across_what_the_client_has_and_has_not() -> None:
    """In mid-stream: its second half has been compared with nothing."""
    play = Playbook(QUIET, protected=False)
    c, p, s = play.tcp()
    for end in (c, p, s):
        end.nxt, end.rcv = 500, 500
    play.pause()
    play.commit()
    play.both(p.data(b"new"), s.data(b"new"))
    play.client(c.ack(495))
    across = p.data(b"12345678", at=490)
    play.primary(across)
    play.secondary(s.data(b"12345678", at=490), releases=ANYTHING)
    play.checkpoint(releases=play.held)


def test_a_handshake_that_nobody_rewrites_waits_all_the_same() -> None:
    play = Playbook(dataclasses.replace(QUIET, rewrite=False))
    c, p, s = play.tcp(secondary_isn=10_000)
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack)
    play.secondary(s.syn_ack(), releases=[syn_ack])


def test_an_acknowledgement_of_a_blocked_flow(play: Playbook) -> None:
    _, p, s = play.connection()
    play.primary(p.data(b"a"))
    play.secondary(s.data(b"b"), requests=["payload"])
    play.primary(p.ack())
    assert len(play.held) == 2


def test_a_connection_without_timestamps(play: Playbook) -> None:
    _, p, s = play.connection(times=False)
    play.both(p.data(b"x"), s.data(b"x"))


def test_old_times_of_a_promoted_guest_are_lifted_until_its_clock_has_caught_up(play: Playbook) -> None:
    _, p, s = play.connection()
    mine = s.data(b"mine")
    play.secondary(mine)
    play.after(1.0)
    ack = p.ack()
    play.primary(ack, releases=[ack])
    play.promote(flushes=[mine])
    play.after(1.0)
    more = s.data(b"more")
    play.primary(more, releases=[more])


def test_the_clocks_of_an_equal_pair_are_one(play: Playbook) -> None:
    _, _, s = play.connection()
    play.checkpoint()
    play.promote()
    for _ in range(2):
        play.after(0.1)
        more = s.data(b"more")
        play.primary(more, releases=[more])


def test_a_guests_own_handshake_that_nobody_rewrites() -> None:
    play = Playbook(dataclasses.replace(QUIET, rewrite=False))
    c, p, s = play.tcp(client_port=443, guest_port=50000, secondary_isn=10_000, secondary_clock=0)
    syn = p.syn()
    play.primary(syn)
    play.secondary(s.syn(), releases=[syn])
    play.client(c.syn_ack())
    play.both(p.data(b"x"), s.data(b"x"))


def test_times_of_a_primary_whose_frames_change_places_are_its_own_affair(play: Playbook) -> None:
    _, p, s = play.connection()
    one = p.data(b"one")
    play.after(0.5)
    two = p.data(b"two")
    play.primary(two)
    play.primary(one)
    play.secondary(s.data(b"onetwo"), releases=[two, one])


def test_an_acknowledgement_does_not_wait_behind_news(play: Playbook) -> None:
    c, p, s = play.connection()
    news = p.data(b"news")
    play.primary(news)
    play.client(c.data(b"request"))
    ack, second = p.ack(), p.ack()
    play.primary(ack, second)
    play.after(1.0)
    play.secondary(s.ack(8, at=1), releases=[ack, second])
    play.secondary(s.data(b"news", at=1), releases=[news])


def test_times_stay_in_order_when_something_overtakes(play: Playbook) -> None:
    c, p, s = play.connection()
    news = p.data(b"news")
    play.primary(news)
    play.after(1.0)
    play.client(c.data(b"request"))
    ack = p.ack()
    play.primary(ack)
    play.secondary(s.ack(8, at=1), releases=[ack])
    play.secondary(s.data(b"news", at=1), releases=[news])
    late = p.data(b"late")
    play.both(late, s.data(b"late"))


def test_what_a_commit_covers_offers_what_the_primary_offers(play: Playbook) -> None:
    """The secondary is its copy by then, and offers the same."""
    c, p, s = play.connection(syn_window=1)
    play.secondary(s.ack(window=10))
    held = p.data(b"x", window=400)
    play.primary(held)
    play.checkpoint(releases=[held])
    assert play.offer(c) == 1 + (400 << 7)


def test_a_small_step_that_opens_the_whole_window_is_worth_it(play: Playbook) -> None:
    c, p, s = play.connection(scale=0, syn_window=1)
    play.client(c.data(b"x"))
    play.secondary(s.ack(window=8000))
    ack = p.ack(window=8100)
    play.primary(ack, releases=[ack])
    play.secondary(s.ack(window=8050))
    play.secondary(s.ack(window=8100), updates=[c])
    assert play.offer(c) == 2 + 8100


def test_a_connection_that_was_reset_is_closed(play: Playbook) -> None:
    _, p, s = play.connection()
    play.both(p.rst(), s.rst())
    assert play.proxy.flows()["closed"] == 1


# A dead primary


def test_a_part_that_would_have_gone_a_moment_later_goes_out_at_the_death(play: Playbook) -> None:
    _, p, s = play.connection()
    whole = p.data(b"onetwo")
    play.primary(whole)
    play.secondary(s.data(b"one"))
    play.promote(parts=[(whole, 4)], acked=1, discards=[whole])


def test_whole_frames_go_out_at_the_death_and_nothing_of_a_flow_that_differs(play: Playbook) -> None:
    flows = [play.connection(client_port=port) for port in (1, 2)]
    held = []
    for c, p, s in flows:
        play.client(c.data(b"request"))
        held.append(p.data(b"one"))
        play.primary(held[-1])
        play.secondary(s.data(b"one", ack=1))
    _, p, s = flows[1]
    bad, mine = p.data(b"two"), s.data(b"TWO", ack=1)
    play.primary(bad)
    play.secondary(mine, requests=["payload"])
    play.promote(said=held[:1], acked=1, discards=[held[1], bad], flushes=[mine])
