"""TCP frames of the two guests, and what happens to all connections at once."""

import dataclasses
import math

import pytest

from colo_compare.core.settings import BYPASS, OBSERVE, Settings
from colo_compare.core.tcp import TcpComparer
from tests.conversation import Endpoint
from tests.frames import ACK, RST, SYN
from tests.playbook import ANYTHING, Playbook

QUIET = Settings(mirror_retry=math.inf, announce=False)


@pytest.fixture
def play() -> Playbook:
    return Playbook(QUIET)


def comparer(play: Playbook) -> TcpComparer:
    return play.proxy._dispatch.tcp


def middle(play: Playbook, port: int = 40000) -> tuple[Endpoint, Endpoint, Endpoint]:
    """The ends of a connection that has lived before."""
    c, p, s = play.tcp(client_port=port)
    for end in (c, p, s):
        end.nxt, end.rcv = 500, 500
    return c, p, s


# The primary


def test_solo_unknown_connections_pass(play: Playbook) -> None:
    play.set_mode(BYPASS)
    _, p, s = play.tcp()
    frame = p.data(b"x")
    play.primary(frame, releases=[frame])
    play.secondary(s.data(b"x"))
    assert len(comparer(play).table.flows) == 0


def test_blocked_unknown_connections_wait() -> None:
    play = Playbook(dataclasses.replace(QUIET, on_secondary_loss="block"))
    play.lose_secondary(blocks=True)
    _, p, _ = play.tcp()
    frame = p.data(b"x")
    play.primary(frame)
    play.protect_again(releases=[frame])


def test_a_reset_in_mid_stream(play: Playbook) -> None:
    _, p, s = play.tcp()
    rst = p.segment(RST, at=500)
    play.primary(rst)
    play.secondary(s.segment(RST, at=500), releases=[rst])


def test_a_full_table_still_takes_the_guests_connections() -> None:
    play = Playbook(dataclasses.replace(QUIET, max_flows=1, max_half_open=8))
    play.connection(client_port=1)
    _, p, s = play.tcp(client_port=443, guest_port=50000)
    syn = p.syn()
    play.primary(syn, requests=["table_full"])
    play.secondary(s.syn(), releases=[syn])
    assert play.proxy.flow_count == 2


def test_a_guests_next_connection_on_the_same_ports(play: Playbook) -> None:
    c, p, s = play.tcp(client_port=443, guest_port=50000, primary_isn=10, secondary_isn=20)
    play.both(p.syn(), s.syn())
    play.client(c.syn_ack())
    held = p.data(b"never said by the other")
    play.primary(held)
    _, p2, s2 = play.tcp(client_port=443, guest_port=50000, primary_isn=90_000, secondary_isn=70_000)
    play.forget(held)
    syn = p2.syn()
    play.primary(syn)
    assert play.proxy.counters.discarded["superseded"] == 1
    play.secondary(s2.syn(), releases=[syn])


def test_a_next_connection_that_the_secondary_began_first(play: Playbook) -> None:
    c, _, _ = play.connection()
    play.client(c.segment(RST))
    c2, p2, s2 = play.tcp(client_isn=900, primary_isn=90_000, secondary_isn=70_000)
    play.client(c2.syn())
    play.secondary(s2.syn_ack())
    syn_ack = p2.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.client(c2.data(b"x"))


def test_a_stale_syn_ack_of_the_primary_begins_nothing(play: Playbook) -> None:
    _, p, s = play.connection()
    play.both(p.data(b"x"), s.data(b"x"))
    play.primary(p.segment(SYN | ACK, at=-5000, ack=1), releases=ANYTHING)
    play.both(p.data(b"y"), s.data(b"y"))
    assert play.proxy.counters.discarded["superseded"] == 0


def test_a_connection_of_unknown_numbers_asks_for_a_checkpoint(play: Playbook) -> None:
    c, p, s = play.connection(client_port=1)
    play.client(c.fin())
    play.both(p.fin(), s.fin())
    play.client(c.ack())
    play.after(300.0)
    _, p, s = middle(play, 2)
    frame = p.data(b"x")
    play.primary(frame, requests=["unknown_flow"])
    play.secondary(s.data(b"x"))
    assert play.proxy.counters.secondary["unplaced"] == 1
    play.pause()
    play.commit(releases=[frame])
    play.both(p.data(b"y"), s.data(b"y"))


def test_a_connection_of_unknown_numbers_asks_again_where_nothing_is_copied() -> None:
    play = Playbook(dataclasses.replace(QUIET, copies_state=False))
    _, p, _ = middle(play)
    for _ in range(2):
        frame = p.data(b"x")
        play.primary(frame, requests=["unknown_flow"])
        play.pause()
        play.commit(releases=[frame])
    assert play.proxy.counters.divergences["unknown_flow"] == 1


# The secondary


def test_the_secondary_far_ahead() -> None:
    play = Playbook(dataclasses.replace(QUIET, max_flow_bytes=10))
    _, p, s = play.connection()
    play.secondary(s.data(b"0123456789"), s.data(b"more"))
    assert play.proxy.counters.secondary["overflow"] == 1
    first = p.data(b"0123456789")
    play.primary(first, releases=[first])


def test_the_secondary_repeats_its_syn_ack(play: Playbook) -> None:
    c, p, s = play.tcp()
    play.client(c.syn())
    play.secondary(s.syn_ack(), s.syn_ack())
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.secondary(s.syn_ack())


def test_very_many_resets_of_the_secondary_are_kept_in_part(play: Playbook) -> None:
    _, _, s = play.connection()
    resets = [s.rst(at=1) for _ in range(12)]
    play.secondary(*resets)
    play.promote(flushes=resets[:8])


def test_what_the_secondary_said_alone_ages_out(play: Playbook) -> None:
    _, p, s = play.connection(client_port=1)
    _, _, s2 = play.connection(client_port=2)
    play.secondary(s.data(b"alone"))
    play.after(2.0)
    play.secondary(s2.fin())
    play.after(1.9)
    assert play.proxy.counters.secondary["aged_out"] == 1
    play.after(10.0)
    assert play.proxy.counters.secondary["aged_out"] == 2
    held = p.data(b"alone")
    play.primary(held)


def test_what_was_matched_does_not_age(play: Playbook) -> None:
    _, p, s = play.connection()
    play.secondary(s.data(b"x"))
    frame = p.data(b"x")
    play.primary(frame, releases=[frame])
    play.after(10.0)
    assert play.proxy.counters.secondary["aged_out"] == 0


def test_a_diverged_connection_keeps_what_the_secondary_said(play: Playbook) -> None:
    """A failed checkpoint, then a death: the survivor's words are all that is left."""
    _, p, s = play.connection()
    held = p.data(b"a")
    play.primary(held)
    mine = s.data(b"b")
    play.secondary(mine, requests=["payload"])
    play.after(5.0)
    play.fail()
    play.promote(discards=[held], flushes=[mine])


def test_the_secondarys_word_opens_a_clamped_window(play: Playbook) -> None:
    c, p, s = play.connection(syn_window=1)
    play.client(c.data(b"x"))
    play.secondary(s.ack(window=0))
    ack = p.ack(window=100)
    play.primary(ack, releases=[ack])
    play.secondary(s.ack(window=100), updates=[c])


def test_observe_repeats_a_short_acknowledgement() -> None:
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE))
    c, p, s = play.tcp()
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.secondary(s.syn_ack())
    play.client(c.ack())
    answer = p.data(b"answer")
    play.primary(answer, releases=[answer])
    thanks = c.ack()
    play.client(thanks)
    play.secondary(s.data(b"answer"), mirrors=[thanks])


def test_sack_names_what_is_missing(play: Playbook) -> None:
    c, p, s = play.connection()
    one, two = c.data(b"one"), c.data(b"two")
    play.client(one, two)
    play.primary(p.ack())
    play.secondary(s.segment(ACK, ack=1, blocks=((4, 7),)), mirrors=[one, two])


# All at once


def test_a_promotion_flushes_what_is_news_only(play: Playbook) -> None:
    c, p, s = play.connection(client_port=1)
    _, p2, s2 = play.connection(client_port=2)
    _, _, s3 = play.tcp(client_port=443, guest_port=50000)
    play.client(c.data(b"request"))
    play.both(p.data(b"one"), s.data(b"one"))
    two, fin, ack, syn = s.data(b"two"), s.fin(), s2.ack(), s3.syn()
    play.secondary(two, fin, ack, syn)
    s3.conversation.view_isn = s3.isn
    play.promote(flushes=[syn, two, fin])  # flow by flow; between them there is no order
    del p2


def test_an_acknowledgement_alone_is_flushed_unless_data_says_as_much(play: Playbook) -> None:
    c, _, s = play.connection(client_port=1)
    c2, _, s2 = play.connection(client_port=2)
    play.client(c.data(b"x"), c2.data(b"x"))
    alone = s.ack()
    data, covered = s2.data(b"y"), s2.ack(at=1)
    play.secondary(alone, data, covered)
    play.promote(flushes=[alone, data])


def test_a_promotion_of_connections_that_slept_through_commits(play: Playbook) -> None:
    c, _, s = play.connection()
    play.checkpoint()
    play.checkpoint()
    play.promote()
    frame = s.data(b"x")
    play.primary(frame, releases=[frame])
    play.client(c.ack(), unmirrored=True)


def test_a_promotion_before_anything_was_copied_silences_old_connections() -> None:
    play = Playbook(dataclasses.replace(QUIET, copies_state=False))
    _, p, s = middle(play)
    frame = p.data(b"x")
    play.primary(frame, requests=["unknown_flow"])
    play.pause()
    play.commit(releases=[frame])
    play.promote()
    lost = s.data(b"y")
    play.forget(lost)
    play.primary(lost)
    assert play.proxy.counters.discarded["failover"] == 1
    s.conversation.view_isn = s.isn
    s.clock = p.clock
    syn_ack = s.segment(SYN | ACK, at=0, ack=1)
    play.primary(syn_ack, releases=[syn_ack])


def test_a_repetition_overtakes_news(play: Playbook) -> None:
    _, p, s = play.connection()
    play.both(p.data(b"old"), s.data(b"old"))
    play.primary(p.data(b"news"))
    again = p.data(b"old", at=1)
    play.primary(again, releases=[again])


def test_a_next_connection_without_a_pair(play: Playbook) -> None:
    play.connection()
    play.lose_secondary()
    c, p, _ = play.tcp(client_isn=900, primary_isn=90_000)
    play.client(c.syn(), unmirrored=True)
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.client(c.ack(), unmirrored=True)


def test_a_repeated_fin_of_the_secondary_is_no_news(play: Playbook) -> None:
    _, p, s = play.connection()
    play.both(p.fin(), s.fin())
    play.secondary(s.fin(at=1))
    play.promote()


def test_a_secondary_that_speaks_first_in_mid_stream() -> None:
    play = Playbook(QUIET, protected=False)
    c, p, s = middle(play)
    play.pause()
    play.commit()
    play.secondary(s.data(b"x"))
    frame = p.data(b"x")
    play.primary(frame, releases=[frame])
    play.client(c.ack())


def test_a_commit_that_copies_nothing_goes_on_from_the_primary() -> None:
    play = Playbook(dataclasses.replace(QUIET, copies_state=False))
    _, p, s = play.connection()
    bad = p.data(b"a")
    play.primary(bad)
    play.secondary(s.data(b"b"), requests=["payload"])
    play.pause()
    play.commit(releases=[bad])
    play.both(p.data(b"c"), s.data(b"c"))


def test_losing_the_secondary_opens_windows(play: Playbook) -> None:
    c, p, s = play.connection(syn_window=1)
    play.secondary(s.ack(window=0))
    ack = p.ack(window=100)
    play.primary(ack, releases=[ack])
    play.lose_secondary(updates=[c])


def test_a_silenced_connection_stays_in_the_account() -> None:
    """What the next secondary says of it is no frame of the primary."""
    play = Playbook(QUIET, protected=False)
    c, p, s = play.tcp()
    for end in (c, p, s):
        end.nxt, end.rcv = 500, 500
    play.set_mode(OBSERVE)
    frame = p.data(b"x")
    play.primary(frame, releases=[frame])
    play.promote()
    lost = s.data(b"z")
    play.forget(lost)
    play.primary(lost)
    (new,) = play.protect_again()
    before = play.proxy.counters.discarded_total()
    play.secondary(new.data(b"y", at=501))
    assert play.proxy.counters.discarded_total() == before


def test_what_the_secondary_never_had_is_the_primary_s_alone() -> None:
    play = Playbook(dataclasses.replace(QUIET, copies_state=False))
    _, p, s = play.connection()
    play.lose_secondary()
    play.protect_again()
    for at in (1, 1):  # a repetition, too
        said = p.data(b"said", at=at)
        play.primary(said, releases=[said])
    play.secondary(s.data(b"who are you?"))
    assert play.proxy.counters.secondary["unplaced"] == 1
    play.promote()
    assert play.proxy.flows()["established"] == 0


def test_a_dead_primary_s_payload_goes_out_and_its_datagrams_do_not(play: Playbook) -> None:
    c, p, s = play.connection()
    _, p2, _ = play.datagrams()
    play.client(c.data(b"request"))
    datagram, one = p2.datagram(b"x"), p.data(b"one")
    play.primary(datagram, one)
    play.secondary(s.data(b"one", ack=1))
    play.promote(said=[one], acked=1, discards=[datagram])


# Between filters of QEMU, which rewrite: no number needs an offset


def test_a_drop_in_hears_an_answer_before_the_primary_s_handshake() -> None:
    play = Playbook(dataclasses.replace(QUIET, mirror=False, rewrite=False))
    _, p, s = play.tcp(secondary_isn=10_000, secondary_clock=0)
    play.secondary(s.syn_ack(ack=1), s.segment(ACK, ack=8), s.data(b"one", ack=8), s.fin(b"two"))
    syn_ack = p.syn_ack(ack=1)
    play.primary(syn_ack, releases=[syn_ack])
    for said in (p.data(b"one", ack=8), p.fin(b"two")):
        play.primary(said, releases=[said])
    assert play.proxy.counters.secondary["unplaced"] == 1  # the acknowledgement, which was only noted


def test_a_drop_in_hears_nothing_of_the_primary_s_handshake() -> None:
    """It passed before the proxy was connected to the primary."""
    play = Playbook(dataclasses.replace(QUIET, mirror=False, rewrite=False))
    _, p, s = play.tcp(secondary_isn=10_000, secondary_clock=0)
    play.forget(p.syn_ack(ack=1))
    play.secondary(s.syn_ack(ack=1), s.data(b"one", ack=8))
    one = p.data(b"one", ack=8)
    play.primary(one, releases=[one])
    play.both(p.data(b"two"), s.data(b"two"))
    assert play.proxy.counters.secondary["unplaced"] == 0


def test_what_a_drop_in_heard_before_any_handshake_of_the_primary_outlives_it() -> None:
    play = Playbook(dataclasses.replace(QUIET, mirror=False, rewrite=False))
    _, _, s = play.tcp(secondary_isn=10_000, secondary_clock=0)
    said = [s.syn_ack(ack=1), s.data(b"one", ack=8)]
    play.secondary(*said)
    play.promote(flushes=said)


def test_a_drop_in_forgets_connections_that_went_on_unheard() -> None:
    play = Playbook(dataclasses.replace(QUIET, mirror=False, rewrite=False))
    _, _, s = play.tcp(secondary_isn=10_000, secondary_clock=0)
    said = [s.syn_ack(ack=1), s.data(b"one", ack=8)]
    play.secondary(*said)
    play.promote(flushes=said)
    play.proxy.forget_flows(play.now)
    assert comparer(play).table.counts() == {"half_open": 0, "established": 0, "closed": 0}
    late = s.data(b"two")
    play.primary(late, releases=[late])  # nobody is asked before there is a secondary
    assert play.proxy.flow_count == 0
