"""Rule 6: nothing is dropped to save memory."""

import dataclasses
import math

import pytest

from colo_compare.core.settings import Settings
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from tests.conversation import Packet
from tests.playbook import ANYTHING, Playbook

FOREVER = Settings(compare_timeout=math.inf, mirror_retry=math.inf)


def test_too_many_held_frames_ask_for_a_checkpoint_and_stop_the_primary() -> None:
    play = Playbook(dataclasses.replace(FOREVER, max_held_frames=4))
    _, p, s = play.connection()
    frames = [p.data(b"x") for _ in range(4)]
    play.primary(*frames[:3])
    assert play.proxy.wants(PRIMARY)
    play.primary(frames[3], requests=["pressure"])
    assert not play.proxy.wants(PRIMARY)
    assert play.proxy.wants(SECONDARY)
    play.secondary(s.data(b"x" * 4), releases=frames)
    assert play.proxy.wants(PRIMARY)


def test_a_batch_that_goes_over_the_limit_is_kept_whole() -> None:
    play = Playbook(dataclasses.replace(FOREVER, max_held_frames=4))
    _, p, _ = play.connection()
    frames = [p.data(b"x") for _ in range(100)]
    play.primary(*frames, requests=["pressure"])
    play.pause()
    play.commit(releases=frames)
    assert play.proxy.wants(PRIMARY)


def test_too_many_held_bytes() -> None:
    play = Playbook(dataclasses.replace(FOREVER, max_held_bytes=3000))
    _, p, s = play.connection()
    frames = [p.data(b"x" * 1000) for _ in range(3)]
    play.primary(*frames, requests=["pressure"])
    assert not play.proxy.wants(PRIMARY)
    play.secondary(s.data(b"x" * 2000), releases=frames[:2])
    assert play.proxy.wants(PRIMARY)
    play.pause()
    play.commit(releases=frames[2:])


def test_datagrams_count_too() -> None:
    play = Playbook(dataclasses.replace(FOREVER, max_held_frames=4))
    _, p, _ = play.datagrams()
    frames = [p.datagram(b"%d" % n) for n in range(4)]
    play.primary(*frames, requests=["pressure"])
    assert not play.proxy.wants(PRIMARY)
    play.pause()
    play.commit(releases=frames)


def test_fragments_count_too() -> None:
    play = Playbook(dataclasses.replace(FOREVER, max_held_frames=4))
    _, p, _ = play.datagrams()
    pieces = [p.fragments(bytes(24), n, (8,))[0] for n in range(4)]
    play.primary(*pieces, requests=["pressure"])
    assert not play.proxy.wants(PRIMARY)
    play.pause()
    play.commit(releases=pieces)


def test_a_paused_primary_drains_in_spite_of_the_limit() -> None:
    play = Playbook(dataclasses.replace(FOREVER, max_held_frames=4))
    _, p, _ = play.connection()
    frames = [p.data(b"x") for _ in range(4)]
    play.primary(*frames, requests=["pressure"])
    rest = [p.data(b"x") for _ in range(4)]
    play.primary(*rest)
    play.pause()
    play.commit(releases=[*frames, *rest])


def test_pressure_after_the_pause_asks_again_after_the_commit() -> None:
    play = Playbook(dataclasses.replace(FOREVER, max_held_frames=4))
    _, p, _ = play.connection()
    play.request(requests=["operator"])
    play.pause()
    frames = [p.data(b"x") for _ in range(5)]
    play.primary(*frames)
    play.commit(requests=["pressure"], kept=False)
    play.pause()
    play.commit(releases=frames)


def test_a_secondary_far_ahead_keeps_a_bounded_part() -> None:
    """What it said beyond the bound is forgotten, not trusted: the primary's bytes there time out."""
    play = Playbook(Settings(max_flow_bytes=10_000))
    _, p, s = play.connection()
    for _ in range(40):
        play.secondary(s.data(b"x" * 1000))
    assert play.proxy.counters.secondary["overflow"] > 0
    frames = [p.data(b"x" * 1000) for _ in range(40)]
    play.primary(*frames, releases=ANYTHING)
    held = play.held
    assert 8 <= 40 - len(held) <= 11
    play.after(3.1, requests=["timeout"])
    play.pause()
    play.commit(releases=held)


def test_client_frames_kept_in_a_checkpoint_are_bounded_and_counted() -> None:
    play = Playbook(dataclasses.replace(FOREVER, max_held_frames=8))
    c, _, _ = play.connection()
    play.request(requests=["operator"])
    lost = 0
    for _ in range(100):
        if not play.proxy.wants(CLIENT):
            break
        play.client(c.data(b"x" * 100), held=True)
        lost = play.proxy.counters.client_discarded["overflow"]
        if lost:
            break
    else:
        pytest.fail("the client's frames are not bounded")


# The flow table


def _syn(play: Playbook, port: int) -> Packet:
    c, _, _ = play.tcp(client_port=port)
    return c.syn()


def test_a_syn_flood_does_not_evict_live_flows() -> None:
    play = Playbook(Settings(max_flows=64, max_half_open=16))
    _, p, s = play.connection(client_port=1)
    first = p.data(b"first")
    play.primary(first)
    for port in range(1000, 1500):
        play.client(_syn(play, port))
    play.secondary(s.data(b"first"), releases=[first])
    play.both(p.data(b"second"), s.data(b"second"))
    assert play.proxy.counters.flows_evicted >= 400


def test_a_half_open_flow_that_waits_is_not_evicted() -> None:
    play = Playbook(Settings(max_half_open=4))
    c, p, s = play.tcp(client_port=1)
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack)
    for port in range(1000, 1100):
        play.client(_syn(play, port))
    play.secondary(s.syn_ack(), releases=[syn_ack])
    play.client(c.ack())
    play.both(p.data(b"x"), s.data(b"x"))


def test_a_full_table_of_live_flows_asks_for_a_checkpoint() -> None:
    play = Playbook(Settings(max_flows=4, max_half_open=4))
    flows = [play.connection(client_port=port) for port in range(1, 5)]
    c, _, _ = play.tcp(client_port=9)
    play.client(c.syn(), held=True, requests=["table_full"])
    for _, p2, s2 in flows:
        play.both(p2.data(b"alive"), s2.data(b"alive"))


def test_closed_flows_age_out() -> None:
    play = Playbook(Settings(max_flows=4, closed_timeout=5.0))
    for _ in range(5):
        for port in range(1, 5):
            c, p, s = play.connection(client_port=port)
            play.client(c.fin())
            play.both(p.fin(), s.fin())
            play.client(c.ack())
        play.after(100.0)
    assert play.proxy.counters.flows_evicted >= 16


def test_half_open_and_idle_flows_age_out() -> None:
    play = Playbook(Settings(half_open_timeout=5.0, idle_timeout=50.0))
    play.connection(client_port=1)
    play.request(requests=["operator"])
    play.pause()
    play.commit()  # equal in both guests: nothing is lost with it
    play.client(_syn(play, 1000))
    play.after(40.0)
    evicted = play.proxy.counters.flows_evicted
    assert evicted == 1
    play.after(200.0)
    assert play.proxy.counters.flows_evicted == 2


def test_an_idle_flow_whose_numbers_differ_stays() -> None:
    """Nobody else knows its offset: without it, the next promotion would break the connection."""
    play = Playbook(Settings(idle_timeout=50.0))
    c, p, s = play.connection()
    play.after(1000.0)
    play.client(c.data(b"hello"))
    play.both(p.data(b"hello"), s.data(b"hello"))
    assert play.proxy.counters.flows_evicted == 0


def test_an_idle_flow_that_aged_out_is_picked_up_again() -> None:
    play = Playbook(Settings(idle_timeout=50.0))
    c, p, s = play.connection()
    play.request(requests=["operator"])
    play.pause()
    play.commit()
    play.after(1000.0)
    assert play.proxy.counters.flows_evicted == 1
    play.client(c.data(b"hello"))
    play.both(p.data(b"hello"), s.data(b"hello"))


def test_datagram_flows_are_bounded_and_age_out() -> None:
    play = Playbook(Settings(datagram_idle_timeout=10.0, max_flows=64))
    for port in range(1, 1000):
        _, p, s = play.datagrams(client_port=port)
        play.both(p.datagram(b"x"), s.datagram(b"x"))
        play.after(1.0)
    assert play.proxy.counters.flows_evicted >= 900


@pytest.mark.parametrize("evicted", ["crowded out", "aged out", "reset"])
def test_nothing_is_kept_of_flows_that_have_gone(evicted: str) -> None:
    """A SYN flood leaves nothing behind: neither memory, nor frames to mirror again after a commit."""
    play = Playbook(Settings(max_half_open=16 if evicted == "crowded out" else 1000, mirror_retry=math.inf))
    for port in range(1000, 1500):
        c, _, _ = play.tcp(client_port=port)
        play.client(c.syn())
        if evicted == "reset":
            play.client(c.segment(0x04))
    if evicted != "crowded out":
        play.after(500.0)
    before = play.proxy.counters.mirrored_again
    play.request(requests=["operator"])
    play.pause()
    play.commit(again=ANYTHING)
    assert play.proxy.counters.mirrored_again - before <= (16 if evicted == "crowded out" else 0)


def test_datagram_flows_are_bounded_at_any_rate() -> None:
    """Answers to forged addresses make a flow each; those in which nothing waits give way."""
    play = Playbook(Settings(max_flows=64))
    _, held, _ = play.datagrams(client_port=60000)
    first = held.datagram(b"x")
    play.primary(first)
    for port in range(1, 1000):
        _, p, s = play.datagrams(client_port=port)
        play.both(p.datagram(b"x"), s.datagram(b"x"))
    assert play.proxy.flows()["datagram"] <= 64
    assert play.held == [first]


def test_what_the_secondary_says_during_a_checkpoint_is_bounded() -> None:
    play = Playbook(dataclasses.replace(FOREVER, max_held_frames=8, announce=False))
    _, _, s = play.datagrams()
    play.request(requests=["operator"])
    play.pause()
    for n in range(100):
        play.secondary(s.datagram(b"%d" % n))
    assert play.proxy._pair.unmatched_frames() <= 16
    assert play.proxy.counters.secondary["overflow"] >= 84
