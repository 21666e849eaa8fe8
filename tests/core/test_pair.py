"""The pair: checkpoints, deaths and modes, and the frames that wait while they happen."""

import dataclasses
import math

import pytest

from colo_compare.core.actions import CheckpointAborted, CheckpointCommitted, ModeChanged, Promoted, SideLost
from colo_compare.core.pair import Pair
from colo_compare.core.settings import BLOCK, BYPASS, OBSERVE, PROTECT, Settings
from colo_compare.core.sides import SECONDARY
from tests.playbook import ANYTHING, Playbook

QUIET = Settings(mirror_retry=math.inf, announce=False)


@pytest.fixture
def play() -> Playbook:
    return Playbook(QUIET)


def pair_of(play: Playbook) -> Pair:
    return play.proxy._pair


# While a checkpoint is on its way


def test_each_side_waits_for_its_own_reason(play: Playbook) -> None:
    c, p, s = play.connection()
    play.request(requests=["operator"])
    play.client(c.data(b"x"), held=True)
    play.primary(p.data(b"covered"))
    play.secondary(s.data(b"covered"), releases=play.held)
    play.pause()
    later, arp = p.data(b"later"), p.opaque(0x0806, bytes(46))
    play.primary(later, arp, releases=[arp])
    play.secondary(s.data(b"void"))
    pair = pair_of(play)
    assert (pair.held_frames(), pair.primary_waiting_bytes) == (1, len(later.data))
    assert pair.unmatched_frames() == 1
    play.commit()
    assert (pair.held_frames(), pair.primary_waiting_bytes, pair.unmatched_frames()) == (1, 0, 0)
    assert play.proxy.counters.secondary["void"] == 1


def test_what_a_loaded_secondary_says_is_delivered_after_the_commit(play: Playbook) -> None:
    _, p, s = play.connection()
    play.request(requests=["operator"])
    play.pause()
    play.secondary(s.data(b"void"))
    play.load()
    play.secondary(s.data(b"new"))
    new = p.data(b"new")
    play.primary(new)
    play.commit(loaded=True, releases=[new])
    committed = [event for event in play.events if isinstance(event, CheckpointCommitted)][-1]
    assert committed.discarded in (0, 1)
    assert play.proxy.counters.secondary["void"] == 1


def test_client_frames_beyond_all_bounds_are_dropped_and_counted() -> None:
    play = Playbook(dataclasses.replace(QUIET, max_held_frames=2))
    c, _, _ = play.datagrams()
    play.request(requests=["operator"])
    packets = [c.datagram(b"%d" % n) for n in range(6)]
    for packet in packets:
        play.client(packet, held=True)
    assert play.proxy.counters.client_discarded["overflow"] == 2
    play.kept = packets[:4]
    play.pause()
    play.commit()


def test_client_bytes_beyond_all_bounds_are_dropped_and_counted() -> None:
    play = Playbook(dataclasses.replace(QUIET, max_held_bytes=1000))
    c, _, _ = play.datagrams()
    play.request(requests=["operator"])
    packets = [c.datagram(bytes(900)) for _ in range(4)]
    for packet in packets:
        play.client(packet, held=True)
    assert play.proxy.counters.client_discarded["overflow"] == 1
    play.kept = packets[:3]
    play.pause()
    play.commit()


def test_a_backend_that_reports_no_pause_holds_everything_at_once() -> None:
    play = Playbook(dataclasses.replace(QUIET, reports_pause=False))
    _, p, s = play.connection()
    play.request(requests=["operator"])
    assert play.proxy.checkpoint_state == "paused"
    frame = p.data(b"x")
    play.primary(frame)
    play.secondary(s.data(b"x"))
    play.fail(releases=[frame])


def test_without_a_copy_what_the_secondary_says_meanwhile_counts() -> None:
    play = Playbook(dataclasses.replace(QUIET, copies_state=False))
    _, p, s = play.connection()
    held = p.data(b"held")
    play.primary(held)
    play.request(requests=["operator"])
    play.pause()
    play.secondary(s.data(b"held"), s.data(b"more"))
    play.commit(releases=[held])
    more = p.data(b"more")
    play.primary(more, releases=[more])


def test_a_period_without_a_reason_is_one() -> None:
    play = Playbook(dataclasses.replace(QUIET, max_interval=2.0))
    play.after(2.1, requests=["periodic"])


def test_a_full_table_makes_room_with_the_commit() -> None:
    play = Playbook(dataclasses.replace(QUIET, max_flows=4, max_half_open=4))
    for port in range(1, 5):
        play.connection(client_port=port)
    c, _, _ = play.tcp(client_port=9)
    play.client(c.syn(), unmirrored=True, requests=["table_full"], mirrors=[], held=True)
    play.kept = []
    play.pause()
    play.commit()
    assert play.proxy.flows()["established"] < 4
    play.client(c.syn())


def test_what_happens_is_told(play: Playbook) -> None:
    _, p, _ = play.connection()
    held = p.data(b"x")
    play.primary(held)
    play.request(requests=["operator"])
    play.after(0.25)
    play.pause()
    play.commit(releases=[held])
    committed = [event for event in play.events if isinstance(event, CheckpointCommitted)][-1]
    assert (committed.epoch, committed.reasons, committed.released) == (2, ("operator",), 1)
    assert committed.request_to_commit == pytest.approx(0.25)


# Failures


def test_a_failure_delivers_what_waited(play: Playbook) -> None:
    c, p, s = play.connection()
    play.request(requests=["operator"])
    play.client(c.data(b"x"), held=True)
    play.pause()
    frame = p.data(b"same")
    play.primary(frame)
    play.secondary(s.data(b"same"))
    play.fail("why", releases=[frame])
    aborted = next(event for event in play.events if isinstance(event, CheckpointAborted))
    assert (aborted.epoch, aborted.detail) == (2, "why")
    assert play.proxy.counters.checkpoints["failed"] == 1


def test_a_failure_too_many(play: Playbook) -> None:
    play.request(requests=["operator"])
    play.fail()
    play.after(0.6, requests=["operator"])
    play.fail()
    play.after(0.6, requests=["operator"])
    play.becomes_solo()
    play.fail(intact=False)
    assert play.proxy.mode == "solo"


# Deaths


def test_a_lost_secondary_takes_what_it_said_with_it(play: Playbook) -> None:
    _, p, s = play.connection()
    play.request(requests=["operator"])
    play.pause()
    frame = p.data(b"x")
    play.primary(frame)
    play.secondary(s.data(b"x"))
    play.lose_secondary(releases=[frame])
    assert play.proxy.counters.secondary["unprotected"] == 1
    lost = next(event for event in play.events if isinstance(event, SideLost))
    assert (lost.side, lost.released) == (SECONDARY, 1)


def test_blocked_frames_wait_for_the_next_pair() -> None:
    play = Playbook(dataclasses.replace(QUIET, on_secondary_loss=BLOCK))
    _, p, _ = play.connection()
    _, p2, _ = play.datagrams()
    frames = [p.data(b"x"), p2.datagram(b"y"), *p2.fragments(bytes(64), 1, (32,))[:1]]
    play.primary(*frames)
    play.lose_secondary(blocks=True)
    assert play.proxy.held_frames == 3
    play.protect_again(releases=frames)


def test_a_blocked_pair_may_be_bypassed() -> None:
    play = Playbook(dataclasses.replace(QUIET, on_secondary_loss=BLOCK))
    _, p, _ = play.connection()
    frame = p.data(b"x")
    play.primary(frame)
    play.lose_secondary(blocks=True)
    play.set_mode(BYPASS, releases=[frame])


def test_losing_the_secondary_while_observing() -> None:
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE, on_secondary_loss=BLOCK))
    _, p, _ = play.datagrams()
    frame = p.datagram(b"x")
    play.primary(frame, releases=[frame])
    play.lose_secondary()
    assert play.proxy.mode == "solo"


def test_a_promotion_in_a_checkpoint_discards_what_came_after_the_pause(play: Playbook) -> None:
    c, p, s = play.connection()
    before = p.data(b"before")
    play.primary(before)
    play.request(requests=["operator"])
    play.client(c.data(b"x"), held=True)
    play.pause()
    after = p.data(b"after")
    play.primary(after)
    mine = s.data(b"mine")
    play.secondary(mine)
    play.promote(discards=[before, after], flushes=[mine])
    promoted = next(event for event in play.events if isinstance(event, Promoted))
    assert (promoted.discarded, promoted.flushed) == (2, 1)
    assert play.proxy.counters.discarded["failover"] == 2


def test_a_promotion_after_the_load_is_a_commit_unheard_of(play: Playbook) -> None:
    _, p, s = play.connection()
    covered = p.data(b"covered")
    play.primary(covered)
    play.request(requests=["operator"])
    play.pause()
    play.load()
    mine = s.data(b"mine")
    play.secondary(mine)
    play.promote(releases=[covered], flushes=[mine])
    assert play.proxy.epoch == 2


def test_a_promotion_announces_what_the_guest_claimed() -> None:
    play = Playbook(Settings(mirror_retry=math.inf))
    _, p, _ = play.datagrams()
    arp = p.arp()
    play.primary(arp, releases=[arp])
    play.promote()


def test_nobody_to_promote(play: Playbook) -> None:
    _, p, _ = play.connection()
    play.lose_secondary()
    play.proxy.promote(play.now)
    play.quiet()
    frame = p.data(b"alive")
    play.primary(frame, releases=[frame])
    assert play.proxy.counters.promotions == 0


# Modes


def test_observing_instead_of_protecting_lets_go(play: Playbook) -> None:
    _, p, _ = play.connection()
    _, p2, _ = play.datagrams()
    frames = [p.data(b"x"), *p2.fragments(bytes(64), 1, (32,))[:1]]
    play.primary(*frames)
    play.set_mode(OBSERVE, releases=frames)
    assert play.proxy.counters.released["observed"] == 2


def test_a_pair_that_is_observed_from_now_on_is_compared_as_before(play: Playbook) -> None:
    c, p, s = play.connection()
    held = p.data(b"held")
    play.primary(held)
    play.set_mode(OBSERVE, releases=[held])
    play.secondary(s.data(b"held"))
    question = c.data(b"?")
    play.client(question)
    same, other = p.data(b"same"), p.data(b"this")
    play.primary(same, other, releases=[same, other])
    before = play.proxy.counters.divergences["payload"]
    play.secondary(s.data(b"same"))
    assert play.proxy.counters.divergences["payload"] == before
    play.secondary(s.data(b"that"))
    assert play.proxy.counters.divergences["payload"] == before + 1


def test_protecting_instead_of_observing_forgets_what_was_compared() -> None:
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE))
    _, p, s = play.datagrams()
    frame = p.datagram(b"x")
    play.primary(frame, releases=[frame])
    play.set_mode("protect", requests=["startup"])
    assert play.proxy.held_frames == 0
    play.pause()
    play.commit()
    play.both(p.datagram(b"y"), s.datagram(b"y"))
    changes = [(event.old, event.new) for event in play.events if isinstance(event, ModeChanged)]
    assert changes == [("observe", "protect")]


def test_a_secondary_that_was_observed_keeps_its_connections() -> None:
    """A checkpoint that copies nothing would not give them back: what they are compared by is kept."""
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE, copies_state=False))
    c, p, s = play.tcp()
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.secondary(s.syn_ack())
    play.client(c.ack())
    play.set_mode(PROTECT, requests=["startup"])
    play.commit()
    answer = p.data(b"as before")
    play.primary(answer)
    play.secondary(s.data(b"as before"), releases=[answer])


def test_another_secondary_while_protected(play: Playbook) -> None:
    _, p, s = play.connection()
    held = p.data(b"x")
    play.primary(held)
    (new,) = play.protect_again(releases=[held])
    play.both(p.data(b"y"), new.data(b"y"))
    del s


def test_a_checkpoint_under_way_is_forgotten_with_its_pair(play: Playbook) -> None:
    play.request(requests=["operator"])
    play.pause()
    play.lose_secondary()
    assert play.proxy.checkpoint_state == "comparing"
    play.after(100.0, releases=ANYTHING)


def test_a_datagram_of_which_a_part_has_passed() -> None:
    """Observed before, protected now: what is out is out, and is not sent again."""
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE))
    _, p, s = play.datagrams()
    one, two = p.fragments(bytes(64), 1, (32,))
    play.primary(one, releases=[one])
    play.set_mode("protect", requests=["startup"])
    play.pause()
    play.commit()
    play.primary(two)
    play.secondary(*s.fragments(bytes(64), 2, (32,)), releases=ANYTHING)
    assert one not in play.held
    counters = play.proxy.counters
    assert (
        counters.received[1]
        == counters.released_total() + play.proxy.held_frames + counters.discarded_total()
    )


def test_what_the_secondary_says_meanwhile_is_bounded_and_counted() -> None:
    play = Playbook(dataclasses.replace(QUIET, max_held_frames=2, copies_state=False))
    _, p, s = play.datagrams()
    play.request(requests=["operator"])
    play.pause()
    for n in range(6):
        play.secondary(s.datagram(b"%d" % n))
    overflow = play.proxy.counters.secondary["overflow"]
    assert 0 < overflow < 6
    play.commit()
    first = p.datagram(b"0")
    play.primary(first, releases=[first])


def test_a_new_secondary_to_which_nothing_is_copied() -> None:
    play = Playbook(dataclasses.replace(QUIET, copies_state=False))
    _, p, _ = play.connection()
    play.lose_secondary()
    play.protect_again()
    said = p.data(b"said")
    play.primary(said, releases=[said])
