"""The modes besides protect, and the changes between them."""

import dataclasses
import math

import pytest

from colo_compare.core.actions import Divergence, ModeChanged
from colo_compare.core.settings import BYPASS, OBSERVE, PROTECT, SOLO, Settings
from tests.playbook import ANYTHING, Playbook

QUIET = Settings(mirror_retry=math.inf, announce=False)


def observing() -> Playbook:
    return Playbook(dataclasses.replace(QUIET, mode=OBSERVE))


def test_observe_lets_the_primary_pass_and_compares() -> None:
    play = observing()
    c, p, s = play.tcp()
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.secondary(s.syn_ack())
    play.client(c.ack())
    play.client(c.data(b"request"))
    answer = p.data(b"answer")
    play.primary(answer, releases=[answer])
    play.secondary(s.data(b"answer"))
    counters = play.proxy.counters
    assert counters.released["observed"] == 2
    assert counters.compared_bytes == 6
    assert not counters.divergences["payload"]


def test_observe_counts_what_would_have_diverged_and_asks_for_nothing() -> None:
    play = observing()
    c, p, s = play.tcp()
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.secondary(s.syn_ack())
    play.client(c.ack())
    one = p.data(b"a")
    play.primary(one, releases=[one])
    play.secondary(s.data(b"b"))
    play.after(100.0)
    assert play.proxy.counters.divergences["payload"] == 1
    assert not play.requests
    assert [event.reason for event in play.events if isinstance(event, Divergence)] == ["payload"]


def test_observe_does_not_clamp_and_does_not_gate() -> None:
    play = observing()
    c, p, s = play.tcp()
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.secondary(s.syn_ack(window=1))
    play.client(c.ack())
    play.secondary(s.ack(window=1))
    ack = p.ack(window=500)
    play.primary(ack, releases=[ack])
    assert play.offer(c) == 1 + (500 << 7)


def test_observe_counts_a_silent_secondary() -> None:
    play = observing()
    _, p, _ = play.datagrams()
    frame = p.datagram(b"x")
    play.primary(frame, releases=[frame])
    play.after(3.1)
    assert play.proxy.counters.divergences["timeout"] == 1


def test_observe_goes_on_comparing_after_a_divergence() -> None:
    play = observing()
    _, p, s = play.datagrams()
    for n in range(3):
        frame = p.datagram(b"a%d" % n)
        play.primary(frame, releases=[frame])
        play.secondary(s.datagram(b"b%d" % n))
        play.after(1.0)
    frame = p.datagram(b"same")
    play.primary(frame, releases=[frame])
    play.secondary(s.datagram(b"same"))
    play.after(10.0)
    assert sum(play.proxy.counters.divergences.values()) == 3


def test_observe_bounds_what_waits_for_comparison() -> None:
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE, max_held_frames=8, compare_timeout=math.inf))
    _, p, _ = play.datagrams()
    for n in range(100):
        frame = p.datagram(b"%d" % n)
        play.primary(frame, releases=[frame])
    assert play.proxy.wants(1)
    assert play.proxy.held_frames == 0


def test_bypass_touches_nothing() -> None:
    play = Playbook(dataclasses.replace(QUIET, mode=BYPASS))
    c, p, s = play.tcp()
    play.client(c.syn(), unmirrored=True)
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.secondary(s.syn_ack())
    play.client(c.ack(), unmirrored=True)
    assert play.proxy.counters.released["unprotected"] == 1
    play.after(1000.0)


def test_protect_to_bypass_releases_what_is_held() -> None:
    play = Playbook(QUIET)
    c, p, _ = play.connection()
    held = p.data(b"x")
    play.primary(held)
    play.request(requests=["operator"])
    kept = c.data(b"y")
    play.client(kept, held=True)
    play.set_mode(BYPASS, releases=[held], to_primary=[kept])
    assert not play.proxy.protected
    more = p.data(b"more")
    play.primary(more, releases=[more])
    assert [(e.old, e.new) for e in play.events if isinstance(e, ModeChanged)] == [(PROTECT, BYPASS)]


def test_protect_to_observe_releases_what_is_held() -> None:
    play = Playbook(QUIET)
    _, p, _ = play.connection()
    held = p.data(b"x")
    play.primary(held)
    play.set_mode(OBSERVE, releases=[held])
    more = p.data(b"more")
    play.primary(more, releases=[more])
    play.after(100.0)


@pytest.mark.parametrize("mode", [BYPASS, OBSERVE])
def test_back_to_protect_begins_with_a_checkpoint(mode: str) -> None:
    play = Playbook(QUIET)
    c, p, s = play.connection()
    play.set_mode(mode)
    assert play.proxy.mode == mode
    unseen = p.data(b"the secondary never said this")
    play.primary(unseen, releases=[unseen])
    play.set_mode(PROTECT, requests=["startup"])
    protected = play.proxy.protected
    assert not protected
    early = p.data(b"early")
    play.primary(early)
    play.pause()
    play.commit(releases=[early])
    assert play.proxy.protected
    play.client(c.ack())
    play.both(p.data(b"same"), s.data(b"same"))


def test_the_same_mode_again_is_no_change() -> None:
    play = Playbook(QUIET)
    play.set_mode(PROTECT)
    assert play.proxy.protected
    assert not [event for event in play.events if isinstance(event, ModeChanged)]


def test_solo_to_observe_and_bypass() -> None:
    play = Playbook(QUIET)
    _, p, _ = play.connection()
    play.lose_secondary()
    play.set_mode(BYPASS)
    play.set_mode(OBSERVE)
    frame = p.data(b"x")
    play.primary(frame, releases=[frame])
    play.after(10.0)


# Something else mirrors or rewrites


def test_a_drop_in_in_mid_stream() -> None:
    play = Playbook(dataclasses.replace(QUIET, mirror=False, rewrite=False))
    _, p, s = play.tcp(secondary_isn=10_000)
    for end in (p, s):
        end.nxt, end.rcv = 5000, 5000
    play.both(p.data(b"one"), s.data(b"one"))
    play.both(p.fin(b"two"), s.fin(b"two"))


def test_a_drop_in_with_datagrams() -> None:
    play = Playbook(dataclasses.replace(QUIET, mirror=False, rewrite=False))
    _, p, s = play.datagrams()
    play.both(p.datagram(b"x"), s.datagram(b"x"))


def test_a_drop_in_takes_no_client_frames_to_anybody() -> None:
    play = Playbook(dataclasses.replace(QUIET, mirror=False))
    c, _, _ = play.tcp()
    play.client(c.syn())
    play.client(c.data(b"x"))


# New settings at run time


def test_a_new_compare_timeout_counts_for_what_is_held() -> None:
    play = Playbook(QUIET)
    _, p, _ = play.connection()
    play.primary(p.data(b"x"))
    play.apply(dataclasses.replace(QUIET, compare_timeout=0.5))
    play.after(0.6, requests=["timeout"])


def test_a_smaller_limit_pushes_back_at_once_and_a_larger_one_lets_go() -> None:
    play = Playbook(QUIET)
    _, p, _ = play.connection()
    play.primary(*(p.data(b"x") for _ in range(10)))
    play.apply(dataclasses.replace(QUIET, max_held_frames=5), requests=ANYTHING)
    assert not play.proxy.wants(1)
    play.apply(dataclasses.replace(QUIET, max_held_frames=100))
    assert play.proxy.wants(1)


def test_what_cannot_change_at_run_time_does_not() -> None:
    play = Playbook(QUIET)
    play.apply(dataclasses.replace(QUIET, mode=SOLO, mirror=False, rewrite=False, copies_state=False))
    assert play.proxy.mode == PROTECT
    play.connection()


def test_a_drop_in_compares_and_sends_to_the_client_only() -> None:
    """As QEMU's colo-compare: filter-mirror mirrors and filter-rewriter rewrites before."""
    play = Playbook(dataclasses.replace(QUIET, mirror=False, rewrite=False))
    _, p, s = play.tcp(secondary_isn=10_000, secondary_clock=0)
    syn_ack = p.syn_ack(ack=1)
    play.primary(syn_ack)
    play.secondary(s.syn_ack(ack=1), releases=[syn_ack])
    play.both(p.data(b"answer", ack=8), s.data(b"answer", ack=8))
    play.primary(p.data(b"a"))
    play.secondary(s.data(b"b"), requests=["payload"])
    play.pause()
    play.commit(releases=play.held)
    play.both(p.data(b"same"), s.data(b"same"))


def test_a_mirror_that_does_not_rewrite_passes_all_bytes_unchanged() -> None:
    play = Playbook(dataclasses.replace(QUIET, rewrite=False))
    c, p, s = play.tcp(secondary_isn=10_000, secondary_clock=0)
    play.client(c.syn())
    play.both(p.syn_ack(), s.syn_ack())
    play.client(c.ack())
    play.client(c.segment(0x10, blocks=((10, 20),)))
    play.both(p.data(b"x"), s.data(b"x"))


def test_observe_lets_fragments_pass_at_once() -> None:
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE))
    _, p, s = play.datagrams()
    one, two = p.fragments(bytes(64), 1, (32,))
    play.primary(one, releases=[one])
    play.primary(two, releases=[two])
    play.secondary(*s.fragments(bytes(64), 2, (32,)))
    assert play.proxy.counters.compared_bytes >= 64
    alone, _ = p.fragments(bytes(64), 3, (32,))
    play.primary(alone, releases=[alone])
    play.after(100.0)


def test_observe_bounds_fragments_too() -> None:
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE, max_held_frames=4, compare_timeout=math.inf))
    _, p, _ = play.datagrams()
    for n in range(20):
        one, two = p.fragments(bytes((n,)) * 64, n + 1, (32,))
        play.primary(one, releases=ANYTHING)
        if n % 2:
            play.primary(two, releases=ANYTHING)
    assert play.held == []
