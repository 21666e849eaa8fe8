"""Rule 5: a divergence asks for one checkpoint and blocks its flow only."""

import math

import pytest

from colo_compare.core.actions import CheckpointRequested, Divergence
from colo_compare.core.settings import Settings
from tests.playbook import Playbook


def test_the_flow_is_blocked_until_the_commit() -> None:
    play = Playbook()
    c, p, s = play.connection()
    first = p.data(b"a1")
    play.primary(first)
    play.secondary(s.data(b"b1"), requests=["payload"])
    second = p.data(b"same")
    play.primary(second)
    play.secondary(s.data(b"same"))
    play.client(c.data(b"held"), held=True)
    play.pause()
    play.commit(releases=[first, second])
    third = p.data(b"after")
    play.primary(third)
    play.secondary(s.data(b"after"), releases=[third])


def test_an_ack_of_a_blocked_flow_waits_too() -> None:
    play = Playbook()
    _, p, s = play.connection()
    first = p.data(b"a1")
    play.primary(first)
    play.secondary(s.data(b"b1"), requests=["payload"])
    ack = p.ack()
    play.primary(ack)
    play.secondary(s.ack())
    play.pause()
    play.commit(releases=[first, ack])


def test_other_flows_go_on() -> None:
    play = Playbook()
    _, p, s = play.connection(client_port=1)
    _, p2, s2 = play.connection(client_port=2)
    _, p3, s3 = play.datagrams()
    bad = p.data(b"a")
    play.primary(bad)
    play.secondary(s.data(b"b"), requests=["payload"])
    play.both(p2.data(b"fine"), s2.data(b"fine"))
    play.both(p3.datagram(b"fine"), s3.datagram(b"fine"))
    play.pause()
    play.commit(releases=[bad])


def test_requests_coalesce_and_keep_their_reasons() -> None:
    play = Playbook(Settings(coalesce=0.010))
    _, p, s = play.connection(client_port=1)
    _, p2, s2 = play.connection(client_port=2)
    play.primary(p.data(b"a"))
    play.secondary(s.data(b"b"))
    play.after(0.005)
    play.primary(p2.fin())
    play.secondary(s2.data(b"more"))
    play.request("operator")
    play.after(0.004)
    play.after(0.002, requests=["payload", "fin", "operator"])
    assert len(play.requests) == 2
    play.pause()
    play.commit(releases=play.held)


def test_a_second_divergence_while_one_is_pending_asks_nothing_new() -> None:
    play = Playbook()
    _, p, s = play.connection(client_port=1)
    _, p2, s2 = play.connection(client_port=2)
    play.primary(p.data(b"a"))
    play.secondary(s.data(b"b"), requests=["payload"])
    play.primary(p2.data(b"a"))
    play.secondary(s2.data(b"b"))
    play.pause()
    play.commit(releases=play.held)
    assert len([event for event in play.events if isinstance(event, Divergence)]) == 2
    play.after(10.0)


def test_a_divergence_after_the_pause_waits_for_the_next_checkpoint() -> None:
    """The frames before the pause are covered, and those behind it are of another epoch."""
    play = Playbook()
    _, p, s = play.connection(client_port=1)
    play.request(requests=["operator"])
    play.pause()
    bad = p.data(b"a")
    play.primary(bad)
    play.commit()
    play.secondary(s.data(b"b"), requests=["payload"])
    play.pause()
    play.commit(releases=[bad])


def test_the_same_flow_asks_once_in_an_epoch() -> None:
    play = Playbook()
    _, p, s = play.connection()
    play.primary(p.data(b"a"))
    play.secondary(s.data(b"b"), requests=["payload"])
    play.primary(p.data(b"c"))
    play.secondary(s.data(b"d"), s.fin())
    play.pause()
    play.commit(releases=play.held)
    assert len([event for event in play.events if isinstance(event, Divergence)]) == 1


def test_min_interval_delays_the_next_request() -> None:
    play = Playbook(Settings(min_interval=1.0))
    _, p, s = play.connection()
    play.primary(p.data(b"a"))
    play.secondary(s.data(b"b"))
    play.after(0.9)
    play.after(0.2, requests=["payload"])


def test_max_interval_asks_periodically() -> None:
    play = Playbook(Settings(max_interval=1.0))
    for _ in range(3):
        play.after(0.99)
        play.after(0.02, requests=["periodic"])
        play.pause()
        play.commit()


def test_any_commit_restarts_the_period() -> None:
    play = Playbook(Settings(max_interval=1.0))
    play.after(0.8)
    play.checkpoint()
    play.after(0.9)
    play.after(0.2, requests=["periodic"])


def test_nothing_is_asked_where_nothing_happens() -> None:
    play = Playbook()
    play.connection()
    play.after(100_000.0)


@pytest.mark.parametrize("timeout", [0.1, 3.0])
def test_a_held_frame_that_waits_too_long(timeout: float) -> None:
    play = Playbook(Settings(compare_timeout=timeout, mirror_retry=math.inf))
    _, p, s = play.connection()
    late = p.data(b"late")
    play.primary(late)
    play.after(timeout * 0.5)
    later = p.data(b"later")
    play.primary(later)
    play.after(timeout * 0.49)
    play.after(timeout * 0.02, requests=["timeout"])
    play.secondary(s.data(b"latelater"), releases=[late, later])
    play.pause()
    play.commit()


def test_compare_timeout_off() -> None:
    play = Playbook(Settings(compare_timeout=math.inf))
    _, p, _ = play.connection()
    play.primary(p.data(b"late"))
    play.after(3600.0)


def test_a_frame_may_time_out_again_after_a_failed_checkpoint() -> None:
    play = Playbook(Settings(compare_timeout=1.0, retry_interval=0.5))
    _, p, _ = play.connection()
    late = p.data(b"late")
    play.primary(late)
    play.after(1.01, requests=["timeout"])
    play.fail()
    play.after(0.49)
    play.after(0.02, requests=["timeout"])
    play.pause()
    play.commit(releases=[late])


def test_an_unmatched_secondary_frame_is_no_danger() -> None:
    play = Playbook()
    _, p, s = play.connection()
    play.secondary(s.data(b"only I"))
    play.after(120.0)
    hello = p.data(b"only I")
    play.primary(hello)
    play.secondary(s.data(b"only I", at=1), releases=[hello])


def test_an_unmatched_reset_or_fin_of_the_secondary_is_no_danger() -> None:
    play = Playbook()
    _, _, s = play.connection(client_port=1)
    _, _, s2 = play.connection(client_port=2)
    play.secondary(s.rst())
    play.secondary(s2.fin())
    play.after(120.0)


def test_events_tell_it_all() -> None:
    play = Playbook()
    _, p, s = play.connection(client_port=40000, guest_port=80)
    play.primary(p.data(b"x" * 100 + b"A" * 100))
    play.secondary(s.data(b"x" * 100 + b"B" * 100), requests=["payload"])
    divergence = next(event for event in play.events if isinstance(event, Divergence))
    assert divergence.id == 1
    assert divergence.at == play.now
    assert (divergence.offset, divergence.primary, divergence.secondary) == (100, b"A" * 64, b"B" * 64)
    assert "10.0.0.2" in divergence.flow
    assert "10.0.0.1" in divergence.flow
    assert "40000" in divergence.flow
    request = play.requests[-1]
    assert (request.epoch, request.reasons, request.flow) == (2, ("payload",), divergence.flow)
    assert [event.request for event in play.events if isinstance(event, CheckpointRequested)] == play.requests
