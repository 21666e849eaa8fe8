"""Rule 7: the order of a checkpoint, and what each part of it covers."""

import math

import pytest

from colo_compare.core.actions import CheckpointAborted, CheckpointCommitted, SideLost
from colo_compare.core.settings import Settings
from tests.frames import ACK
from tests.playbook import ANYTHING, Playbook

NO_RETRY = Settings(mirror_retry=math.inf)


@pytest.fixture
def play() -> Playbook:
    return Playbook(NO_RETRY)


# What is released


def test_covered_frames_go_out_in_arrival_order_over_all_flows(play: Playbook) -> None:
    _, p, _ = play.connection(client_port=1)
    _, p2, _ = play.connection(client_port=2)
    _, p3, _ = play.datagrams()
    frames = [
        p.data(b"a"),
        p3.datagram(b"b"),
        p2.data(b"c"),
        p.data(b"d"),
        p2.fin(),
        p3.datagram(b"e"),
        p.data(b"f"),
    ]
    for frame in frames:
        play.primary(frame)
    play.request(requests=["operator"])
    play.pause()
    play.commit(releases=frames)
    committed = [event for event in play.events if isinstance(event, CheckpointCommitted)][-1]
    assert (committed.epoch, committed.reasons, committed.released) == (2, ("operator",), len(frames))


def test_frames_of_a_draining_port_are_covered(play: Playbook) -> None:
    _, p, _ = play.connection()
    play.request(requests=["operator"])
    drained = p.data(b"drained")
    play.primary(drained)
    play.pause()
    play.commit(releases=[drained])


def test_frames_after_the_pause_are_compared_in_the_new_epoch(play: Playbook) -> None:
    _, p, s = play.connection()
    before = p.data(b"before")
    play.primary(before)
    play.request(requests=["operator"])
    play.pause()
    play.load()
    after = p.data(b"after")
    play.primary(after)
    play.commit(releases=[before], loaded=True)
    assert play.held == [after]
    play.secondary(s.data(b"after"), releases=[after])


def test_a_loaded_secondary_may_speak_before_the_commit(play: Playbook) -> None:
    _, p, s = play.connection()
    before = p.data(b"before")
    play.primary(before)
    play.request(requests=["operator"])
    play.pause()
    play.load()
    play.secondary(s.data(b"after"))
    after = p.data(b"after")
    play.primary(after)
    play.commit(releases=[before, after], loaded=True)


def test_nothing_of_the_old_secondary_counts(play: Playbook) -> None:
    _, p, s = play.connection()
    ahead = s.data(b"ahead")
    play.secondary(ahead)
    play.request(requests=["operator"])
    play.pause()
    play.secondary(s.data(b" of time"))
    play.commit()
    first = p.data(b"ahead")
    play.primary(first)
    play.secondary(s.data(b"ahead"), releases=[first])
    assert play.proxy.counters.secondary["void"] == 2


def test_an_old_datagram_of_the_secondary_counts_no_more(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.secondary(s.datagram(b"answer"))
    play.checkpoint()
    answer = p.datagram(b"answer")
    play.primary(answer)
    play.secondary(s.datagram(b"answer"), releases=[answer])


def test_old_fragments_of_the_secondary_count_no_more(play: Playbook) -> None:
    _, p, s = play.datagrams()
    old = s.fragments(bytes(64), 1, (32,))
    new = s.fragments(bytes(64), 1, (32,))
    play.secondary(old[0])
    play.checkpoint()
    pieces = p.fragments(bytes(64), 2, (32,))
    play.primary(*pieces)
    play.secondary(new[1])
    play.secondary(new[0], releases=pieces)


def test_a_fin_and_a_reset_of_the_old_secondary_count_no_more(play: Playbook) -> None:
    _, p, s = play.connection(client_port=1)
    _, p2, s2 = play.connection(client_port=2)
    play.secondary(s.fin(), s2.rst())
    play.checkpoint()
    fin, rst = p.fin(), p2.rst()
    play.primary(fin, rst)
    play.secondary(s.fin(), releases=[fin])
    play.secondary(s2.rst(), releases=[rst])


def test_an_ack_of_the_old_secondary_counts_no_more(play: Playbook) -> None:
    """The old secondary had consumed what the new one, the primary's copy, has not."""
    c, p, s = play.connection()
    request = c.data(b"request")
    play.client(request)
    play.secondary(s.ack())
    play.request(requests=["operator"])
    p.rcv = 1  # the request is still in the primary's queue
    play.pause()
    play.commit(again=[request])
    p.rcv = s.rcv = 8
    ack = p.ack()
    play.primary(ack)
    play.secondary(s.ack(), releases=[ack])


def test_a_window_of_the_old_secondary_counts_no_more(play: Playbook) -> None:
    c, p, s = play.connection(syn_window=1)
    play.client(c.data(b"x"))
    play.secondary(s.ack(window=10_000))
    ack = p.ack(window=10)
    play.primary(ack, releases=[ack])
    play.checkpoint()
    larger = p.ack(window=300)
    play.primary(larger, releases=[larger])
    assert play.offer(c) == 2 + (10 << 7)


# Offsets


def test_offsets_are_equal_after_a_commit(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.data(b"before"))
    play.both(p.data(b"one"), s.data(b"one"))
    play.checkpoint()
    play.client(c.ack())
    play.client(c.data(b"after"))
    assert s.isn == p.isn
    play.both(p.data(b"two"), s.data(b"two"))
    play.client(c.segment(ACK, blocks=((10, 20),)))


def test_a_half_open_flow_has_the_primarys_offset_after_a_commit(play: Playbook) -> None:
    """The client's SYN has been answered by both; the third ACK comes after the commit."""
    c, p, s = play.tcp()
    play.client(c.syn())
    play.both(p.syn_ack(), s.syn_ack())
    play.checkpoint()
    play.client(c.ack())
    play.client(c.data(b"hi"))
    play.both(p.data(b"hello"), s.data(b"hello"))


def test_a_syn_ack_that_a_commit_releases(play: Playbook) -> None:
    c, p, s = play.tcp()
    syn = c.syn()
    play.client(syn)
    syn_ack = p.syn_ack()
    play.primary(syn_ack)
    play.request(requests=["operator"])
    play.pause()
    play.commit(releases=[syn_ack])
    play.client(c.ack())
    play.both(p.data(b"hello"), s.data(b"hello"))


def test_a_syn_that_only_the_old_secondary_answered(play: Playbook) -> None:
    c, p, s = play.tcp()
    syn = c.syn()
    play.client(syn)
    play.secondary(s.syn_ack())
    play.request(requests=["operator"])
    play.pause()
    play.commit(again=[syn])
    syn_ack = p.syn_ack()
    play.primary(syn_ack)
    s.isn, s.nxt = 123_456, 0  # it accepts the SYN by itself, with a number of its own
    s.rcv = 1
    play.secondary(s.syn_ack(), releases=[syn_ack])
    play.client(c.ack())
    play.both(p.data(b"hello"), s.data(b"hello"))


def test_a_guests_own_syn_that_a_commit_releases(play: Playbook) -> None:
    c, p, s = play.tcp(client_port=443, guest_port=50000)
    syn = p.syn()
    play.primary(syn)
    play.request(requests=["operator"])
    play.pause()
    play.commit(releases=[syn])
    play.client(c.syn_ack())
    ack = p.ack()
    play.primary(ack)
    play.secondary(s.ack(), releases=[ack])


@pytest.mark.parametrize("isn", [0xFFFFFFF8, 0])
def test_an_epoch_that_spans_the_wrap(play: Playbook, isn: int) -> None:
    c, p, s = play.connection(primary_isn=isn, secondary_isn=isn + 9, client_isn=isn)
    for _ in range(3):
        play.both(p.data(b"hello"), s.data(b"hello"))
        play.client(c.data(b"request"))
        covered = p.data(b"covered")
        play.primary(covered)
        play.checkpoint(releases=[covered])


def test_many_checkpoints_in_one_connection(play: Playbook) -> None:
    c, p, s = play.connection()
    for n in range(10):
        covered = p.data(b"p%d" % n)
        play.primary(covered)
        play.secondary(s.data(b"s%d" % n), requests=["payload"])
        play.pause()
        play.commit(releases=[covered])
        play.client(c.ack())
        play.both(p.data(b"same"), s.data(b"same"))


# The client meanwhile


def test_client_frames_are_held_from_the_request_to_the_commit(play: Playbook) -> None:
    c, _, _ = play.connection()
    c2, _, _ = play.datagrams()
    play.request(requests=["operator"])
    play.client(c.data(b"one"), held=True)
    play.client(c2.datagram(b"two"), held=True)
    play.pause()
    play.client(c.data(b"three"), held=True)
    play.load()
    play.client(c.opaque(0x0806, bytes(46)), held=True)
    play.commit(loaded=True)
    play.client(c.ack())


def test_a_client_frame_is_rewritten_with_the_new_offset(play: Playbook) -> None:
    c, p, s = play.connection()
    play.both(p.data(b"hello"), s.data(b"hello"))
    play.request(requests=["operator"])
    play.client(c.ack(), held=True)
    play.pause()
    play.commit()  # the playbook checks it against the new secondary's numbers


def test_unacknowledged_client_data_is_mirrored_once_more(play: Playbook) -> None:
    c, p, s = play.connection()
    one, two = c.data(b"one"), c.data(b"two")
    play.client(one, two)
    play.primary(p.ack(4))
    play.secondary(s.ack(7), releases=[play.held[0]])
    play.request(requests=["operator"])
    kept = c.data(b"three")
    play.client(kept, held=True)
    play.pause()
    play.commit(again=[two])
    play.after(1.0)


def test_acknowledged_client_data_is_not(play: Playbook) -> None:
    c, p, _ = play.connection()
    play.client(c.data(b"one"), c.data(b"two"))
    covered = p.ack()
    play.primary(covered)
    play.request(requests=["operator"])
    play.pause()
    play.commit(releases=[covered])


def test_an_unacknowledged_fin_is_mirrored_once_more(play: Playbook) -> None:
    c, p, s = play.connection()
    fin = c.fin()
    play.client(fin)
    play.secondary(s.ack())
    play.request(requests=["operator"])
    p.rcv = 1
    play.pause()
    play.commit(again=[fin])


def test_what_is_mirrored_again_is_bounded() -> None:
    play = Playbook(Settings(max_flow_bytes=4000, mirror_retry=math.inf))
    c, p, _ = play.connection()
    for _ in range(50):
        play.client(c.data(b"x" * 1000))
    play.request(requests=["operator"])
    p.rcv = 1
    play.pause()
    before = play.proxy.counters.mirrored_again
    play.commit(again=ANYTHING)
    assert play.proxy.counters.mirrored_again - before <= 5


# What else can happen


def test_a_checkpoint_that_the_backend_begins(play: Playbook) -> None:
    c, p, _ = play.connection()
    frame = p.data(b"x")
    play.primary(frame)
    assert play.begun() == 2
    play.client(c.data(b"held"), held=True)
    play.pause()
    play.commit(releases=[frame])


def test_a_begun_checkpoint_serves_what_was_about_to_be_asked() -> None:
    play = Playbook(Settings(coalesce=1.0, mirror_retry=math.inf))
    _, p, s = play.connection()
    bad = p.data(b"a")
    play.primary(bad)
    play.secondary(s.data(b"b"))
    play.begun()
    play.pause()
    play.commit(releases=[bad])
    play.after(10.0)


def test_a_failed_checkpoint_leaves_everything_as_it_was(play: Playbook) -> None:
    c, p, s = play.connection()
    bad = p.data(b"a")
    play.primary(bad)
    play.secondary(s.data(b"b"), requests=["payload"])
    held = c.data(b"held")
    play.client(held, held=True)
    drained = p.data(b"drained")
    play.primary(drained)
    play.pause()
    play.fail("no space")
    assert play.held == [bad, drained]
    aborted = [event for event in play.events if isinstance(event, CheckpointAborted)]
    assert [(event.epoch, event.detail) for event in aborted] == [(2, "no space")]
    play.after(0.49)
    play.after(0.02, requests=["payload"])
    play.pause()
    play.commit(releases=[bad, drained], again=[held])


def test_a_secondary_that_matches_after_an_abort(play: Playbook) -> None:
    """What it said while the checkpoint was on its way still counts when nothing was loaded."""
    _, p, s = play.connection()
    frame = p.data(b"same")
    play.primary(frame)
    play.request(requests=["operator"])
    play.pause()
    play.secondary(s.data(b"same"), releases=ANYTHING)
    play.fail(releases=ANYTHING)
    assert not play.held


def test_too_many_failures_lose_the_secondary() -> None:
    play = Playbook(Settings(max_failures=2, retry_interval=0.5, mirror_retry=math.inf))
    _, p, _ = play.connection()
    frame = p.data(b"x")
    play.primary(frame)
    play.request(requests=["operator"])
    play.fail()
    play.after(0.51, requests=["operator"])
    play.becomes_solo()
    play.fail(releases=[frame])
    assert play.proxy.mode == "solo"


def test_a_failure_that_broke_the_secondary_loses_it(play: Playbook) -> None:
    c, p, _ = play.connection()
    frame = p.data(b"x")
    play.primary(frame)
    play.request(requests=["operator"])
    play.client(c.data(b"y"), held=True)
    play.pause()
    play.fail(intact=False, releases=[frame])
    assert play.proxy.mode == "solo"
    lost = [event for event in play.events if isinstance(event, SideLost)]
    assert [(event.side, event.released, event.discarded) for event in lost] == [(2, 1, 0)]


@pytest.mark.parametrize("paused", [False, True])
def test_a_checkpoint_that_takes_too_long_loses_the_secondary(paused: bool) -> None:
    play = Playbook(Settings(checkpoint_timeout=2.0, mirror_retry=math.inf))
    c, p, _ = play.connection()
    frame = p.data(b"x")
    play.primary(frame)
    play.request(requests=["operator"])
    kept = c.data(b"y")
    play.client(kept, held=True)
    if paused:
        play.pause()
    play.after(1.9)
    play.becomes_solo()
    play.after(0.2, releases=[frame], to_primary=[kept])
    assert play.proxy.mode == "solo"


def test_a_late_report_of_a_checkpoint_that_was_given_up_is_ignored() -> None:
    play = Playbook(Settings(checkpoint_timeout=2.0))
    play.request(requests=["operator"])
    play.becomes_solo()
    play.after(2.1)
    for report in (play.proxy.paused, play.proxy.loaded, play.proxy.committed):
        report(2, play.now)
        play.quiet()
    play.proxy.failed(2, "late", True, play.now)
    play.quiet()
    assert play.proxy.mode == "solo"


def test_reports_of_another_epoch_are_ignored(play: Playbook) -> None:
    _, p, _ = play.connection()
    frame = p.data(b"x")
    play.primary(frame)
    play.request(requests=["operator"])
    for epoch in (0, 1, 3):
        play.proxy.paused(epoch, play.now)
        play.proxy.loaded(epoch, play.now)
        play.proxy.committed(epoch, play.now)
        play.proxy.failed(epoch, "old", True, play.now)
        play.quiet()
    assert (play.proxy.epoch, play.proxy.checkpoint_state) == (1, "requested")
    play.pause()
    play.commit(releases=[frame])


# Backends that cannot tell when the primary stopped


def test_without_a_pause_all_is_held_from_the_request_on() -> None:
    play = Playbook(Settings(reports_pause=False, mirror_retry=math.inf))
    _, p, s = play.connection()
    before = p.data(b"before")
    play.primary(before)
    play.request(requests=["operator"])
    play.secondary(s.data(b"before"), releases=ANYTHING)
    unsure = p.data(b"unsure")
    play.primary(unsure)
    play.secondary(s.data(b"unsure"))
    assert unsure in play.held


def test_without_a_pause_what_came_after_the_request_needs_more_than_the_commit() -> None:
    """It may have been sent after the copy was taken: then no guest stands behind it yet."""
    play = Playbook(Settings(reports_pause=False, mirror_retry=math.inf))
    _, p, s = play.connection()
    before = p.data(b"before")
    play.primary(before)
    play.request(requests=["operator"])
    play.snapshot()
    unsure = p.data(b"unsure")
    play.primary(unsure)
    play.commit(releases=[before])
    play.secondary(s.data(b"unsure"), releases=[unsure])


# Checkpoints that copy nothing (`null`)


def test_a_commit_that_copies_nothing_still_releases_and_keeps_the_offsets() -> None:
    play = Playbook(Settings(copies_state=False, mirror_retry=math.inf))
    c, p, s = play.connection()
    bad = p.data(b"a")
    play.primary(bad)
    play.secondary(s.data(b"b"), requests=["payload"])
    play.pause()
    play.commit(releases=[bad])
    play.client(c.ack())
    play.both(p.data(b"same"), s.data(b"same"))


def test_the_first_commit_that_copies_nothing() -> None:
    play = Playbook(Settings(copies_state=False))
    c, p, s = play.connection()
    play.client(c.data(b"x"))
    play.both(p.data(b"same"), s.data(b"same"))


def test_nothing_reaches_the_secondary_between_pause_and_commit() -> None:
    """A repetition made with the old offset must not meet the new state, either."""
    play = Playbook(Settings(mirror_retry=0.02))
    c, p, _ = play.connection()
    play.client(c.data(b"request"))
    ack = p.ack()
    play.primary(ack)
    play.request(requests=["operator"])
    play.pause()
    play.after(1.0)
    play.commit(releases=[ack])
