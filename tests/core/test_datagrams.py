"""The datagram comparer, driven as the proxy does."""

import dataclasses
import math

import pytest

from colo_compare.core.actions import Divergence
from colo_compare.core.counters import TABLE_FULL
from colo_compare.core.settings import BYPASS, OBSERVE, Settings
from tests.playbook import ANYTHING, Playbook

QUIET = Settings(mirror_retry=math.inf, announce=False)
WINDOW = QUIET.datagram_window


@pytest.fixture
def play() -> Playbook:
    return Playbook(QUIET)


@pytest.fixture
def observing() -> Playbook:
    return Playbook(dataclasses.replace(QUIET, mode=OBSERVE))


def test_equal_datagrams_many_times(play: Playbook) -> None:
    _, p, s = play.datagrams()
    copies = [p.datagram(b"same") for _ in range(3)]
    play.primary(*copies)
    for copy in copies:
        play.secondary(s.datagram(b"same"), releases=[copy])
    play.secondary(s.datagram(b"same"), s.datagram(b"same"))
    for _ in range(2):
        copy = p.datagram(b"same")
        play.primary(copy, releases=[copy])


def test_the_first_in_the_queue_holds_the_others(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.secondary(s.datagram(b"two"))
    one, two = p.datagram(b"one"), p.datagram(b"two")
    play.primary(one)
    play.primary(two)
    play.secondary(s.datagram(b"one"), releases=[one, two])


def test_a_blocked_flow_releases_nothing(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.primary(p.datagram(b"a"))
    play.secondary(s.datagram(b"b"))
    play.after(WINDOW * 1.1, requests=["payload"])
    play.primary(p.datagram(b"same"))
    play.secondary(s.datagram(b"same"), s.datagram(b"a"))
    play.after(5.0)
    play.pause()
    play.commit(releases=play.held)


def test_a_difference_counts_from_the_later_of_the_two(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.primary(p.datagram(b"a"))
    play.after(WINDOW * 5)
    play.secondary(s.datagram(b"b"))
    play.after(WINDOW * 0.9)
    play.after(WINDOW * 0.2, requests=["payload"])


def test_the_secondarys_words_age_out_one_by_one(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.secondary(s.datagram(b"old"), s.datagram(b"same"))
    play.after(2.0)
    play.secondary(s.datagram(b"same"))
    play.after(1.5)
    play.secondary(s.datagram(b"tick"))
    play.after(0.9)
    same = p.datagram(b"same")
    play.primary(same, releases=ANYTHING)
    play.after(30.0, requests=ANYTHING)
    assert play.proxy.counters.secondary["aged_out"] >= 2


def test_what_the_secondary_says_alone_is_bounded() -> None:
    play = Playbook(dataclasses.replace(QUIET, max_flow_bytes=100))
    _, p, s = play.datagrams()
    play.secondary(*(s.datagram(bytes((n,)) * 60) for n in range(4)))
    assert play.proxy.counters.secondary["overflow"] == 2
    one = p.datagram(bytes(60))
    play.primary(one, releases=[one])


def test_idle_flows_are_forgotten_and_others_are_not() -> None:
    play = Playbook(dataclasses.replace(QUIET, datagram_idle_timeout=10.0, compare_timeout=math.inf))
    _, p, s = play.datagrams(client_port=1)
    play.both(p.datagram(b"x"), s.datagram(b"x"))
    _, p2, _ = play.datagrams(client_port=2)
    held = p2.datagram(b"held")
    play.primary(held)
    _, _, s3 = play.datagrams(client_port=3)
    play.secondary(s3.datagram(b"alone"))
    assert play.proxy.flows()["datagram"] == 3
    play.after(60.0)
    assert play.proxy.flows()["datagram"] == 2
    assert play.held == [held]


def test_a_table_full_of_waiting_flows_grows_and_asks() -> None:
    play = Playbook(dataclasses.replace(QUIET, max_flows=16))
    held = []
    for port in range(1, 41):
        _, p, _ = play.datagrams(client_port=port)
        frame = p.datagram(b"x")
        held.append(frame)
        play.primary(frame, requests=[TABLE_FULL] if port == 17 else [])
    play.pause()
    play.commit(releases=held)


def test_flows_in_which_the_secondary_spoke_alone_do_not_give_way() -> None:
    play = Playbook(dataclasses.replace(QUIET, max_flows=4))
    _, p, s = play.datagrams(client_port=1)
    play.secondary(s.datagram(b"early"))
    for port in range(2, 12):
        _, p2, s2 = play.datagrams(client_port=port)
        play.both(p2.datagram(b"x"), s2.datagram(b"x"))
    early = p.datagram(b"early")
    play.primary(early, releases=[early])


# Modes, deaths


def test_observe_compares_what_has_passed(observing: Playbook) -> None:
    _, p, s = observing.datagrams()
    one, two = p.datagram(b"one"), p.datagram(b"two")
    observing.primary(one, two, releases=[one, two])
    observing.secondary(s.datagram(b"two"))
    observing.secondary(s.datagram(b"one"), s.datagram(b"three"))
    three = p.datagram(b"three")
    observing.primary(three, releases=[three])
    assert observing.proxy.counters.compared_bytes >= 11
    observing.after(10.0)
    assert not any(observing.proxy.counters.divergences.values())


def test_observe_counts_a_difference_and_begins_anew(observing: Playbook) -> None:
    _, p, s = observing.datagrams()
    one = p.datagram(b"one")
    observing.primary(one, releases=[one])
    observing.secondary(s.datagram(b"ONE"))
    observing.after(WINDOW * 1.1)
    assert observing.proxy.counters.divergences["payload"] == 1
    two = p.datagram(b"two")
    observing.primary(two, releases=[two])
    observing.secondary(s.datagram(b"two"))
    observing.after(10.0)
    assert sum(observing.proxy.counters.divergences.values()) == 1


def test_observe_under_pressure_forgets_the_oldest() -> None:
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE, max_held_frames=3, compare_timeout=math.inf))
    _, p, s = play.datagrams()
    frames = [p.datagram(b"%d" % n) for n in range(6)]
    play.primary(*frames, releases=frames)
    play.secondary(*(s.datagram(b"%d" % n) for n in range(6)))
    last = p.datagram(b"last")
    play.primary(last, releases=[last])
    play.secondary(s.datagram(b"last"), s.datagram(b"more"))
    play.primary(different := p.datagram(b"less"), releases=[different])
    play.after(WINDOW * 1.1)
    assert play.proxy.counters.divergences["payload"] == 1
    (event,) = [event for event in play.events if isinstance(event, Divergence)]
    assert (event.ours.data, event.ours.data[event.ours.at :]) == (different.data, b"less")
    assert event.theirs.data[event.theirs.at :] == b"more"


def test_without_a_pair_everything_passes(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.set_mode(BYPASS)
    pieces = p.fragments(bytes(64), 1, (32,))
    play.primary(*pieces, releases=pieces)
    one = p.datagram(b"one")
    play.primary(one, releases=[one])
    play.secondary(s.datagram(b"one"))


def test_a_lost_secondary_leaves_nothing_behind(play: Playbook) -> None:
    _, p, s = play.datagrams()
    held = p.datagram(b"a")
    play.primary(held)
    play.secondary(s.datagram(b"b"))
    play.lose_secondary(releases=[held])
    (new,) = play.protect_again()
    again = p.datagram(b"b")
    play.primary(again)
    play.secondary(new.datagram(b"b"), releases=[again])


def test_what_only_the_secondary_said_is_flushed_with_its_fragments(play: Playbook) -> None:
    _, p, s = play.datagrams()
    mine = s.datagram(b"mine")
    pieces = s.fragments(bytes(64), 7, (32,))
    both = s.datagram(b"both")
    play.both(p.datagram(b"both"), both)
    play.secondary(mine, *pieces)
    play.promote(flushes=[mine, *pieces])


def test_a_commit_makes_the_secondarys_words_void(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.secondary(s.datagram(b"old"), *s.fragments(bytes(64), 1, (32,)))
    play.checkpoint()
    assert play.proxy.counters.secondary["void"] == 3
    old = p.datagram(b"old")
    play.primary(old)
    play.secondary(s.datagram(b"old"), releases=[old])


def test_a_large_datagram_in_fragments_counts_whole(play: Playbook) -> None:
    _, p, s = play.datagrams()
    pieces = p.fragments(bytes(range(256)) * 4, 3, (512,))
    play.secondary(s.datagram(bytes(range(256)) * 4))
    play.primary(*pieces, releases=pieces)
    held = p.fragments(b"\1" * 600, 4, (296,))
    play.primary(*held)
    assert play.proxy.held_frames == 2
    play.secondary(s.datagram(b"\1" * 600), releases=held)


def test_a_segmented_datagram_matches_single_ones(play: Playbook) -> None:
    """UDP segmentation offload: one frame of the primary is several datagrams of the secondary."""
    _, p, s = play.datagrams()
    whole = p.segmented_datagram(b"aaaabbbbcc", 4)
    play.primary(whole)
    play.secondary(s.datagram(b"bbbb"))
    play.secondary(s.datagram(b"cc"))
    play.secondary(s.datagram(b"aaaa"), releases=[whole])
    one = p.datagram(b"aaaa")
    play.secondary(s.segmented_datagram(b"aaaabbbb", 4))
    play.primary(one, releases=[one])
    two = p.datagram(b"bbbb")
    play.primary(two, releases=[two])


def test_observe_lets_fragments_pass_once(observing: Playbook) -> None:
    _, p, s = observing.datagrams()
    pieces = p.fragments(bytes(64), 1, (32,))
    for piece in pieces:
        observing.primary(piece, releases=[piece])
    observing.secondary(s.datagram(bytes(64)))
    observing.after(10.0)
    assert not any(observing.proxy.counters.divergences.values())


def test_observe_gives_a_flow_up_of_which_it_forgot_a_part() -> None:
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE, max_held_frames=3, compare_timeout=math.inf))
    _, p, s = play.datagrams()
    play.secondary(s.datagram(b"other"))
    frames = [p.datagram(b"%d" % n) for n in range(5)]
    play.primary(*frames, releases=frames)
    play.after(WINDOW * 1.1)
    assert play.proxy.counters.divergences["payload"] == 1
    last = p.datagram(b"last")
    play.primary(last, releases=[last])
    play.secondary(s.datagram(b"last"))
    play.after(10.0)
    assert sum(play.proxy.counters.divergences.values()) == 1


def test_a_difference_before_the_first_commit_shows_what_differs_and_blocks() -> None:
    play = Playbook(QUIET, protected=False)
    _, p, s = play.datagrams()
    play.fail()
    play.primary(p.datagram(b"same"))
    play.secondary(s.datagram(b"same"))
    play.primary(p.datagram(b"prefix a"))
    play.secondary(s.datagram(b"prefix b"))
    play.after(WINDOW * 1.1)
    assert play.proxy.counters.divergences["payload"] == 1
    play.after(0.5, requests=["startup", "payload"])
    play.pause()
    play.commit(releases=play.held)


def test_a_flow_stays_blocked_after_a_failed_checkpoint(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.primary(p.datagram(b"a"))
    play.secondary(s.datagram(b"b"))
    play.after(WINDOW * 1.1, requests=["payload"])
    play.fail()
    play.primary(p.datagram(b"same"))
    play.secondary(s.datagram(b"same"))
    play.after(0.4)
    play.after(0.2, requests=["payload"])
    play.pause()
    play.commit(releases=play.held)


def test_a_segmented_datagram_ages_out_as_one_frame(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.secondary(s.segmented_datagram(b"aaaabbbb", 4))
    play.after(10.0)
    assert play.proxy.counters.secondary["aged_out"] == 1
    play.primary(p.datagram(b"aaaa"))
    assert len(play.held) == 1


def test_only_what_is_unmatched_is_flushed(play: Playbook) -> None:
    _, p, s = play.datagrams()
    mine = s.datagram(b"mine")
    play.secondary(mine, s.datagram(b"both"))
    both = p.datagram(b"both")
    play.primary(both, releases=[both])
    play.promote(flushes=[mine])


def test_what_aged_out_makes_room() -> None:
    play = Playbook(dataclasses.replace(QUIET, max_flow_bytes=100))
    _, p, s = play.datagrams()
    play.secondary(s.datagram(bytes(60)), s.datagram(bytes(61)))
    play.after(10.0)
    play.secondary(s.datagram(b"\1" * 60), s.datagram(b"\2" * 60))
    assert play.proxy.counters.secondary["overflow"] == 0
    frames = [p.datagram(b"\1" * 60), p.datagram(b"\2" * 60)]
    play.primary(*frames, releases=frames)


def test_the_next_look_at_differences_is_known_without_looking(play: Playbook) -> None:
    datagrams = play.proxy._dispatch.datagrams
    _, p, s = play.datagrams()
    play.primary(p.datagram(b"one"))
    assert datagrams.check_due == math.inf
    play.secondary(s.datagram(b"two"))
    first = play.now + play.settings.datagram_window
    assert datagrams.check_due == first
    play.after(0.005)
    _, q, r = play.datagrams(client_port=6000)
    play.secondary(r.datagram(b"three"))
    play.primary(q.datagram(b"four"))
    play.proxy.handle_timer(play.now)
    assert datagrams.check_due == first
    play.after(0.016, requests=["payload"])
    assert datagrams.check_due == play.now - 0.016 + 0.02


def test_a_promotion_lets_go_of_what_the_old_primary_said(play: Playbook) -> None:
    """Compiled, nobody else finds the circle of a flow and what is held in it."""
    _, p, _ = play.datagrams()
    one = p.datagram(b"one")
    play.primary(one)
    (flow,) = play.proxy._dispatch.datagrams.flows.values()
    assert (len(flow.queue), len(flow.primary)) == (1, 1)
    play.promote(discards=[one])
    assert (len(flow.queue), len(flow.primary)) == (0, 0)
