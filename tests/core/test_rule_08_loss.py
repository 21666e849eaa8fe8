"""Rule 8: the loss of either guest, and the life after it."""

import dataclasses
import math
from dataclasses import replace

import pytest

from colo_compare.core.actions import ModeChanged, Promoted, SideLost
from colo_compare.core.settings import BLOCK, Settings
from tests import frames
from tests.frames import ACK, FIN, RST, SYN, dissect
from tests.playbook import ANYTHING, Playbook

QUIET = Settings(mirror_retry=math.inf, announce=False)


@pytest.fixture
def play() -> Playbook:
    return Playbook(QUIET)


# Loss of the secondary


def test_held_frames_go_out_when_the_secondary_is_lost(play: Playbook) -> None:
    c, p, _ = play.connection()
    _, p2, _ = play.datagrams()
    held = [p.data(b"one"), p2.datagram(b"two"), p.fin()]
    play.primary(*held)
    play.lose_secondary(releases=held)
    assert (play.proxy.mode, play.proxy.protected) == ("solo", False)
    lost = [event for event in play.events if isinstance(event, SideLost)]
    assert [(event.side, event.released, event.discarded) for event in lost] == [(2, 3, 0)]
    assert [(e.old, e.new) for e in play.events if isinstance(e, ModeChanged)] == [("protect", "solo")]
    more = p.data(b"more")
    play.primary(more, releases=[more])
    play.client(c.data(b"hi"), unmirrored=True)
    play.after(1000.0)


def test_a_diverged_flow_goes_on_when_the_secondary_is_lost(play: Playbook) -> None:
    _, p, s = play.connection()
    bad = p.data(b"a")
    play.primary(bad)
    play.secondary(s.data(b"b"), requests=["payload"])
    play.lose_secondary(releases=[bad])
    more = p.data(b"more")
    play.primary(more, releases=[more])


def test_client_frames_held_for_a_checkpoint_go_on_when_the_secondary_is_lost(play: Playbook) -> None:
    c, p, _ = play.connection()
    held = p.data(b"x")
    play.primary(held)
    play.request(requests=["operator"])
    play.client(c.data(b"one"), held=True)
    play.pause()
    play.client(c.ack(), held=True)
    play.lose_secondary(releases=[held])
    play.client(c.ack(), unmirrored=True)


def test_frames_after_the_pause_go_out_too_when_the_secondary_is_lost(play: Playbook) -> None:
    _, p, _ = play.connection()
    play.request(requests=["operator"])
    play.pause()
    after = p.data(b"x")
    play.primary(after)
    play.lose_secondary(releases=[after])


def test_block_holds_on() -> None:
    play = Playbook(Settings(on_secondary_loss=BLOCK, mirror_retry=math.inf))
    c, p, _ = play.connection()
    held = p.data(b"x")
    play.primary(held)
    play.lose_secondary(blocks=True)
    assert (play.proxy.mode, play.held) == ("block", [held])
    more = p.data(b"more")
    play.primary(more)
    play.after(10.0)
    (s,) = play.protect_again(releases=[held, more])
    play.client(c.ack())
    play.both(p.data(b"again"), s.data(b"again"))


def test_what_a_lost_secondary_still_sends_is_discarded(play: Playbook) -> None:
    _, p, s = play.connection()
    play.lose_secondary()
    play.secondary(s.data(b"ghost"))
    frame = p.data(b"real")
    play.primary(frame, releases=[frame])


def test_a_second_loss_changes_nothing(play: Playbook) -> None:
    play.lose_secondary()
    play.lose_secondary()
    assert play.proxy.mode == "solo"


# Loss of the primary


def test_held_frames_of_a_dead_primary_are_never_seen(play: Playbook) -> None:
    _, p, s = play.connection()
    held = p.data(b"held")
    play.primary(held)
    play.promote(discards=[held])
    assert play.proxy.counters.discarded["failover"] == 1
    other = s.data(b"other")
    play.primary(other, releases=[other])


def test_what_the_secondary_said_goes_out_at_once(play: Playbook) -> None:
    c, _, s = play.connection()
    _, _, s2 = play.datagrams()
    one, two, three = s.data(b"one"), s2.datagram(b"two"), s.fin(b"three")
    play.secondary(one, two, three)
    play.promote(flushes=[one, three, two])  # in order within each flow
    promoted = next(event for event in play.events if isinstance(event, Promoted))
    assert (promoted.discarded, promoted.flushed, promoted.rewritten) == (0, 3, 1)
    play.client(c.ack(), unmirrored=True)


def test_what_the_client_has_seen_already_need_not(play: Playbook) -> None:
    _, p, s = play.connection()
    one, two = p.data(b"one"), s.data(b"onetwo")
    play.primary(one)
    play.secondary(two, releases=[one])
    play.promote(flushes=[two])


def test_what_both_said_and_waited_for_an_acknowledgement_goes_out_without_it(play: Playbook) -> None:
    """The secondary's copy was compared, and is gone: else the client waits for its time-out."""
    c, p, s = play.connection()
    play.client(c.data(b"request"))
    one, two, three = p.data(b"one"), p.data(b"two"), p.data(b"three")
    play.primary(one, two, three)
    play.secondary(s.data(b"onetwo", ack=1))
    assert play.held == [one, two, three]
    play.promote(said=[one, two], acked=1, discards=[three])
    assert play.proxy.counters.discarded["failover"] == 1
    again = s.data(b"three")
    play.primary(again, releases=[again])


def test_the_part_that_both_said_goes_out_too(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.data(b"request"))
    whole = p.data(b"onetwo")
    play.primary(whole)
    play.secondary(s.data(b"one", ack=1))
    play.promote(parts=[(whole, 4)], acked=1, discards=[whole])
    rest = s.data(b"two")
    play.primary(rest, releases=[rest])


def test_the_secondary_goes_on_behind_what_both_said(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.data(b"request"))
    one = p.data(b"one")
    play.primary(one)
    play.secondary(s.data(b"one", ack=1))
    two = s.data(b"two", ack=1)
    play.secondary(two)
    play.promote(said=[one], acked=1, flushes=[two])


def test_of_a_flow_that_differs_only_the_secondary_is_heard(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.data(b"request"))
    one, bad = p.data(b"one"), p.data(b"two")
    play.primary(one, bad)
    play.secondary(s.data(b"one", ack=1))
    mine = s.data(b"TWO", ack=1)
    play.secondary(mine, requests=["payload"])
    play.promote(discards=[one, bad], flushes=[mine])


def test_an_ack_of_the_secondary_alone_goes_out(play: Playbook) -> None:
    """Else the client would repeat what its guest has, after a time-out."""
    c, _, s = play.connection()
    play.client(c.data(b"request"))
    ack = s.ack()
    play.secondary(ack)
    play.promote(flushes=[ack])


def test_a_diverged_secondary_goes_on_from_what_it_said(play: Playbook) -> None:
    c, p, s = play.connection()
    bad = p.data(b"same A")
    play.primary(bad)
    mine = s.data(b"same B")
    play.secondary(mine, requests=["payload"])
    play.promote(discards=[bad], flushes=[mine])
    play.client(c.ack(), unmirrored=True)


def test_a_syn_ack_of_the_secondary_alone_makes_the_connection(play: Playbook) -> None:
    c, _, s = play.tcp()
    play.client(c.syn())
    syn_ack = s.syn_ack()
    play.secondary(syn_ack)
    c.conversation.view_isn = s.isn
    play.promote(flushes=[syn_ack])
    play.client(c.ack(), unmirrored=True)
    hello = s.data(b"hello")
    play.primary(hello, releases=[hello])


def test_a_syn_ack_that_the_dead_primary_left_unseen(play: Playbook) -> None:
    c, p, s = play.tcp()
    play.client(c.syn())
    unseen = p.syn_ack()
    play.primary(unseen)
    play.promote(discards=[unseen])
    c.conversation.view_isn = s.isn
    syn_ack = s.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.client(c.ack(), unmirrored=True)


def test_a_guests_syn_that_only_the_secondary_sent(play: Playbook) -> None:
    c, _, s = play.tcp(client_port=443, guest_port=50000)
    syn = s.syn()
    play.secondary(syn)
    c.conversation.view_isn = s.isn
    play.promote(flushes=[syn])
    play.client(c.syn_ack(), unmirrored=True)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("isn", [(10_000, 50_000), (50_000, 10_000), (0xFFFFFFFA, 3), (3, 0xFFFFFFFA)])
def test_the_connection_lives_on_with_its_offset(play: Playbook, isn: tuple[int, int], version: int) -> None:
    c, p, s = play.connection(primary_isn=isn[0], secondary_isn=isn[1], version=version)
    play.client(c.data(b"request"))
    play.both(p.data(b"before"), s.data(b"before"))
    play.client(c.ack())
    play.promote()
    for _ in range(3):
        play.client(c.data(b"request"), unmirrored=True)
        answer = s.data(b"after")
        play.primary(answer, releases=[answer])
        play.client(c.segment(ACK, blocks=((12, 20), (30, 40))), unmirrored=True)
    fin = s.fin()
    play.primary(fin, releases=[fin])
    play.client(c.fin(), unmirrored=True)


@pytest.mark.parametrize("clock", [0, 1_000_000, 0xFFFFFF00 - 1_000_000, 0x80000000])
def test_timestamps_never_step_back(play: Playbook, clock: int) -> None:
    c, p, s = play.connection(primary_clock=clock, secondary_clock=77)
    play.after(0.5)
    play.client(c.data(b"request"))
    play.both(p.data(b"one"), s.data(b"one"))
    play.client(c.ack())
    mine = s.data(b"two")
    play.secondary(mine)
    play.after(0.5)
    ack = p.ack()
    play.primary(ack, releases=[ack])  # newer for the client than the frame that waits
    play.promote(flushes=[mine])
    play.client(c.ack(), unmirrored=True)
    more = s.data(b"three")
    play.primary(more, releases=[more])


def test_a_slow_clock_of_the_new_primary_is_lifted(play: Playbook) -> None:
    c, p, s = play.connection()
    s.clock -= 400  # it stood still for a while (its timestamps may not step back for itself either)
    play.after(1.0)
    play.both(p.data(b"one"), s.data(b"one"))
    play.client(c.ack())
    play.promote()
    for _ in range(5):
        play.after(0.1)
        more = s.data(b"more")
        play.primary(more, releases=[more])


def test_an_equal_pair_needs_no_rewriter_after_a_commit(play: Playbook) -> None:
    _, p, s = play.connection()
    play.both(p.data(b"one"), s.data(b"one"))
    play.checkpoint()
    play.promote()
    promoted = next(event for event in play.events if isinstance(event, Promoted))
    assert (promoted.flows, promoted.rewritten) == (1, 0)
    more = s.data(b"more")
    play.primary(more, releases=[more])


def test_client_data_that_the_secondary_never_got_is_given_to_it(play: Playbook) -> None:
    """The proxy has it, so why should the client's timer decide how long the stall is."""
    c, p, _ = play.connection()
    play.client(c.data(b"request"))
    play.primary(p.ack())
    left = play.held
    play.promote(discards=left, again=ANYTHING)


# A primary that dies in a checkpoint


def test_before_the_commit_nothing_was_covered(play: Playbook) -> None:
    c, p, s = play.connection()
    covered = p.data(b"covered")
    play.primary(covered)
    play.request(requests=["operator"])
    play.client(c.data(b"held"), held=True)
    play.pause()
    play.promote(discards=[covered])
    assert play.proxy.epoch == 1
    other = s.data(b"other")
    play.primary(other, releases=[other])


def test_before_the_commit_the_old_secondary_still_counts(play: Playbook) -> None:
    _, _, s = play.connection()
    mine = s.data(b"mine")
    play.secondary(mine)
    play.request(requests=["operator"])
    play.pause()
    late = s.data(b"late")
    play.secondary(late)
    play.promote(flushes=[mine, late])


def test_a_loaded_secondary_is_the_new_one(play: Playbook) -> None:
    """It has the new state and no other: the covered frames are its own past, and must be seen."""
    c, p, s = play.connection()
    covered = p.data(b"covered")
    play.primary(covered)
    play.secondary(s.data(b"old"), requests=["payload"])
    play.client(c.data(b"held"), held=True)
    play.pause()
    play.load()
    new = s.data(b"new")
    play.secondary(new)
    play.promote(releases=[covered], flushes=[new])
    more = s.data(b"more")
    play.primary(more, releases=[more])
    play.client(c.ack(), unmirrored=True)


def test_after_the_commit_it_is_the_new_one(play: Playbook) -> None:
    c, p, s = play.connection()
    covered = p.data(b"covered")
    play.primary(covered)
    play.checkpoint(releases=[covered])
    after = p.data(b"after")
    play.primary(after)
    play.promote(discards=[after])
    other = s.data(b"other")
    play.primary(other, releases=[other])
    play.client(c.ack(), unmirrored=True)


def test_frames_after_the_pause_die_with_the_primary(play: Playbook) -> None:
    _, p, s = play.connection()
    covered = p.data(b"covered")
    play.primary(covered)
    play.request(requests=["operator"])
    play.pause()
    play.load()
    after = p.data(b"after")
    play.primary(after)
    play.promote(releases=[covered], discards=[after])
    mine = s.data(b"mine")
    play.primary(mine, releases=[mine])


# The next pair


def test_a_promoted_guest_is_protected_again(play: Playbook) -> None:
    c, p, s = play.connection()
    play.both(p.data(b"one"), s.data(b"one"))
    play.client(c.ack())
    play.promote()
    (new,) = play.protect_again()
    assert play.proxy.protected
    play.client(c.data(b"request"))  # translated for both: checked against their numbers
    play.both(s.data(b"two"), new.data(b"two"))
    play.client(c.segment(ACK, blocks=((10, 20),)))


def test_a_second_failover(play: Playbook) -> None:
    c, p, s = play.connection()
    play.both(p.data(b"one"), s.data(b"one"))
    play.client(c.ack())
    play.after(0.2)
    play.promote()
    (new,) = play.protect_again()
    play.after(0.2)
    play.client(c.data(b"request"))
    play.both(s.data(b"two"), new.data(b"two"))
    mine = new.data(b"three")
    play.secondary(mine)
    play.promote(flushes=[mine])
    play.client(c.ack(), unmirrored=True)
    play.after(0.2)
    more = new.data(b"four")
    play.primary(more, releases=[more])


def test_a_new_connection_after_the_failover_has_no_offset(play: Playbook) -> None:
    _, _, _ = play.connection(client_port=1)
    play.promote()
    play.protect_again()
    c, p2, s2 = play.connection(client_port=2)
    play.both(p2.data(b"x"), s2.data(b"x"))
    play.client(c.ack())
    play.promote()
    more = s2.data(b"more")
    play.primary(more, releases=[more])


def test_new_connections_while_solo(play: Playbook) -> None:
    play.connection(client_port=1)
    play.promote()
    c, p, _ = play.tcp(client_port=2)
    play.client(c.syn(), unmirrored=True)
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.client(c.ack(), unmirrored=True)
    _, new = play.protect_again()
    play.client(c.data(b"hello"))
    play.both(p.data(b"x"), new.data(b"x"))


def test_an_old_offset_outlives_any_idle_time() -> None:
    play = Playbook(Settings(idle_timeout=60.0, announce=False))
    c, _, s = play.connection()
    play.promote()
    play.after(100_000.0)
    play.client(c.data(b"still here"), unmirrored=True)
    answer = s.data(b"me too")
    play.primary(answer, releases=[answer])


@pytest.mark.parametrize("gigabytes", range(1, 11))
def test_what_was_said_while_solo_is_no_comparison(gigabytes: int) -> None:
    """Sequence numbers come round every 4 GiB: where the stream stands must not be forgotten meanwhile."""
    play = Playbook(Settings(announce=False))
    c, p, _ = play.connection()
    play.lose_secondary()
    for _ in range(gigabytes):
        p.nxt += 1 << 30
        some = p.data(b"alone")
        play.primary(some, releases=[some])
        c.rcv = p.nxt
        play.client(c.ack(), unmirrored=True)
    (new,) = play.protect_again()
    both = p.data(b"both")
    play.primary(both)
    play.secondary(new.data(b"both"), releases=[both])


def test_another_secondary_in_place_of_the_one_that_was(play: Playbook) -> None:
    """`protect` while protected: nothing of the old secondary counts from here on."""
    _, p, s = play.connection()
    play.secondary(s.data(b"old"))
    (new,) = play.protect_again()
    frame = p.data(b"old")
    play.primary(frame)
    play.secondary(new.data(b"old"), releases=[frame])


def test_promote_without_a_secondary_promises_nothing(play: Playbook) -> None:
    """Solo: there is nobody to take over."""
    _, p, _ = play.connection()
    play.lose_secondary()
    play.proxy.promote(play.now)
    frame = p.data(b"alive")
    play.primary(frame, releases=[frame])


# A new secondary that no checkpoint gives the connections from before: they stay the primary's alone

UNCOPIED = Settings(copies_state=False, mirror_retry=math.inf, announce=False)


def test_connections_from_before_are_alone_and_go_on() -> None:
    play = Playbook(UNCOPIED)
    c, p, _ = play.connection(client_port=1)
    play.lose_secondary()
    play.protect_again()
    play.client(c.data(b"question"), unmirrored=True)
    answer = p.data(b"answer")
    play.primary(answer, releases=[answer])
    play.after(10.0)
    assert play.proxy.counters.released["unprotected"] == 1
    assert play.proxy.counters.requests["timeout"] == play.proxy.counters.requests["unknown_flow"] == 0
    # All others are compared.
    c2, p2, s2 = play.connection(client_port=2)
    play.client(c2.data(b"question"))
    play.both(p2.data(b"answer"), s2.data(b"answer"))


@pytest.mark.parametrize("first", ["client", "guest"])
def test_connections_that_began_while_solo_are_alone(first: str) -> None:
    play = Playbook(UNCOPIED)
    play.lose_secondary()
    c, p, _ = play.tcp()
    c.nxt = c.rcv = p.nxt = p.rcv = 1
    play.protect_again()
    for _ in range(2):
        if first == "client":
            play.client(c.data(b"question"), unmirrored=True)
        answer = p.data(b"answer")
        play.primary(answer, releases=[answer])
        play.client(c.ack(), unmirrored=True)
    assert play.proxy.counters.divergences["unknown_flow"] == 0


def test_what_is_alone_does_not_wait_for_the_first_commit() -> None:
    play = Playbook(UNCOPIED)
    _, p, _ = play.connection()
    play.becomes_solo()
    play.lose_secondary()
    play.proxy.protect(play.now)
    play.proxy.take_actions()
    assert not play.proxy.protected
    early = p.data(b"early")
    play.primary(early, releases=[early])


def test_what_is_alone_ends_with_its_guest() -> None:
    """The new primary knows nothing of it, and says so when the client speaks."""
    play = Playbook(UNCOPIED)
    c, p, _ = play.connection(client_port=1)
    play.lose_secondary()
    play.protect_again()
    said = p.data(b"said")
    play.primary(said, releases=[said])
    c2, p2, s2 = play.connection(client_port=2)
    play.both(p2.data(b"x"), s2.data(b"x"))
    play.promote()
    assert play.proxy.flows()["established"] == 1
    new = p.conversation.primary
    new.isn = p.isn  # it has none: its answer takes the client's word (RFC 9293, section 3.10.7.1)
    play.client(c.data(b"still there?"), unmirrored=True)
    refusal = new.segment(RST, at=c.rcv)
    play.primary(refusal, releases=[refusal])
    play.client(c2.data(b"and you?"), unmirrored=True)


def test_the_next_connection_of_the_same_ports_is_both_guests() -> None:
    play = Playbook(UNCOPIED)
    c, p, _ = play.connection()
    play.lose_secondary()
    play.protect_again()
    play.client(c.segment(FIN | ACK), unmirrored=True)
    bye = p.segment(FIN | ACK)
    play.primary(bye, releases=[bye])
    play.client(c.ack(), unmirrored=True)
    c, p, s = play.connection(client_isn=900_000, primary_isn=800_000)  # another conversation
    play.both(p.data(b"x"), s.data(b"x"))


def test_blocked_without_a_secondary_nothing_is_alone() -> None:
    play = Playbook(replace(UNCOPIED, on_secondary_loss="block"))
    _, p, _ = play.connection()
    play.lose_secondary(blocks=True)
    held = p.data(b"held")
    play.primary(held)
    play.protect_again(releases=[held])
    said = p.data(b"said")
    play.primary(said, releases=[said])
    play.lose_secondary(blocks=True)
    play.primary(p.data(b"held again"))


# Announcement


@pytest.mark.parametrize("vlans", [(), (12,)])
def test_a_promotion_is_announced(vlans: tuple[int, ...]) -> None:
    play = Playbook(Settings(mirror_retry=math.inf))
    _, p, _ = play.datagrams(vlans=vlans)
    request = p.arp()
    play.primary(request, releases=[request])
    _, p6, _ = play.datagrams(vlans=vlans, version=6)
    advertisement = p6.advertisement()
    play.primary(advertisement, releases=[advertisement])
    play.proxy.promote(play.now)
    out = [dissect(frame.data, frame.header_len) for frame in play.proxy.take_actions().to_client]
    arps = [seen for seen in out if seen.ethertype == 0x0806]
    advertisements = [seen for seen in out if seen.protocol == 58]
    assert arps
    assert advertisements
    for seen in arps:
        body = seen.data[14 + 4 * len(vlans) :]
        assert (seen.source_mac, seen.vlans) == (frames.GUEST_MAC, vlans)
        assert seen.target_mac == b"\xff" * 6
        assert body[8:14] == frames.GUEST_MAC
        assert (body[14:18], body[24:28]) == (frames.GUEST_IP4, frames.GUEST_IP4)
    for seen in advertisements:
        assert not seen.problems
        assert (seen.source_mac, seen.vlans) == (frames.GUEST_MAC, vlans)
        assert seen.target_mac == bytes.fromhex("333300000001")
        assert seen.source == frames.GUEST_IP6
        assert seen.target == bytes.fromhex("ff020000000000000000000000000001")
        assert seen.payload[0] == 136
        assert seen.payload[4] & 0x60 == 0x20  # unsolicited, override (RFC 4861, section 4.4)
        assert seen.payload[8:24] == frames.GUEST_IP6
        assert seen.payload[24:32] == b"\x02\x01" + frames.GUEST_MAC
        hop_limit_at = 14 + 4 * len(vlans) + 7
        assert seen.data[hop_limit_at] == 255


def test_no_announcement_where_it_is_switched_off(play: Playbook) -> None:
    play.connection()
    play.promote(announced=False)


def test_a_window_that_was_clamped_is_whole_again_without_a_secondary(play: Playbook) -> None:
    c, p, s = play.connection(syn_window=1)
    play.secondary(s.ack(window=0))
    ack = p.ack(window=300)
    play.primary(ack, releases=[ack])
    play.client(c.ack())
    play.lose_secondary(updates=[c])
    assert play.offer(c) == 1 + (300 << 7)


def test_an_idle_connection_survives_a_failover() -> None:
    """However long it was silent: the secondary has numbers of its own, and nobody else knows which."""
    play = Playbook(dataclasses.replace(QUIET, idle_timeout=60.0))
    c, _, s = play.connection()
    for _ in range(30):
        play.after(10.0, requests=ANYTHING)
        if play.proxy.checkpoint_state == "requested":
            play.pause()
            play.commit()
    play.promote()
    play.client(c.data(b"still here"), unmirrored=True)
    answer = s.data(b"me too")
    play.primary(answer, releases=[answer])


def test_everything_that_is_flushed_is_lifted_to_the_clients_time(play: Playbook) -> None:
    """In stream order the newest of it need not be last: its time says nothing of the others'."""
    c, p, s = play.connection()
    play.checkpoint()
    s.data(b"one")  # lost on its way to the proxy
    two = s.data(b"two")
    play.secondary(two)
    play.after(0.2)
    one = s.data(b"one", at=1)
    play.secondary(one)
    ack = p.ack()
    play.primary(ack, releases=[ack])
    play.promote(flushes=[one, two])
    play.client(c.ack(), unmirrored=True)


def test_a_stale_syn_ack_of_the_secondary_does_not_end_a_connection(play: Playbook) -> None:
    """A late copy from a connection that used the same ports before; the primary never says the like."""
    c, p, s = play.connection()
    play.both(p.data(b"x"), s.data(b"x"))
    play.secondary(s.segment(SYN | ACK, at=-20_000, ack=1))
    play.after(10.0)
    play.promote()
    more = s.data(b"more")
    play.primary(more, releases=[more])
    play.client(c.ack(), unmirrored=True)


def test_a_commit_that_the_death_cut_short_repeats_client_data_to_the_survivor(play: Playbook) -> None:
    """The old secondary had consumed it, and the loaded one never saw it; it is the primary now."""
    c, p, s = play.connection()
    request = c.data(b"request")
    play.client(request)
    play.secondary(s.ack())
    play.request(requests=["operator"])
    p.rcv = 1
    play.pause()
    play.load()
    play.promote(again=[request])
