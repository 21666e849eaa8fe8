"""Two handshakes side by side."""

import dataclasses
import math

import pytest

from colo_compare.core.actions import Divergence, Evidence
from colo_compare.core.settings import OBSERVE, Settings
from tests.frames import ACK, SYN
from tests.playbook import Playbook

QUIET = Settings(mirror_retry=math.inf, announce=False)


@pytest.fixture
def play() -> Playbook:
    return Playbook(QUIET)


@pytest.mark.parametrize("first", ["primary", "secondary"])
@pytest.mark.parametrize("times", [True, False])
def test_either_guest_may_be_first(play: Playbook, first: str, times: bool) -> None:
    c, p, s = play.tcp(times=times)
    play.client(c.syn())
    syn_ack = p.syn_ack()
    if first == "primary":
        play.primary(syn_ack)
        play.secondary(s.syn_ack(), releases=[syn_ack])
    else:
        play.secondary(s.syn_ack())
        play.primary(syn_ack, releases=[syn_ack])
    play.client(c.data(b"request"))  # checked against each guest's numbers
    play.both(p.data(b"answer"), s.data(b"answer"))


def test_guests_that_differ_in_what_they_agree_to(play: Playbook) -> None:
    c, p, s = play.tcp()
    play.client(c.syn())
    ours, theirs = p.syn_ack(mss=1460), s.syn_ack(mss=536)
    play.primary(ours)
    play.secondary(theirs, requests=["handshake"])
    divergence = next(event for event in play.events if isinstance(event, Divergence))
    assert divergence.primary == ours.data[34:]
    assert divergence.secondary == theirs.data[34:]
    assert (divergence.ours, divergence.theirs) == (
        Evidence(ours.data, 34, -1.0),
        Evidence(theirs.data, 34, -1.0),
    )
    play.secondary(s.syn_ack(mss=536))
    play.pause()
    play.commit(releases=[ours])
    play.client(c.ack())


def test_what_a_rewriter_would_break(play: Playbook) -> None:
    c, p, s = play.tcp(times=False)
    play.client(c.syn())
    ours = p.syn_ack(other=b"\x1d\x10" + bytes(14), sack_permitted=False)
    play.primary(ours)
    play.secondary(s.syn_ack(other=b"\x1d\x10" + bytes(14), sack_permitted=False), requests=["unrewritable"])


def test_it_may_pass_where_nothing_is_rewritten() -> None:
    play = Playbook(dataclasses.replace(QUIET, rewrite=False))
    c, p, s = play.tcp(times=False, secondary_isn=10_000)
    play.client(c.syn())
    ours = p.syn_ack(other=b"\x1d\x10" + bytes(14), sack_permitted=False)
    play.primary(ours)
    play.secondary(s.syn_ack(other=b"\x1d\x10" + bytes(14), sack_permitted=False), releases=[ours])


def test_a_client_without_scaling_switches_it_off(play: Playbook) -> None:
    c, p, s = play.tcp(scale=0)
    play.client(c.segment(SYN, at=0, without_scale=True))
    syn_ack = p.segment(SYN | ACK, at=0, window=1)
    play.primary(syn_ack)
    play.secondary(s.segment(SYN | ACK, at=0, window=1), releases=[syn_ack])
    play.client(c.ack())
    play.secondary(s.ack(window=100))
    ack = p.ack(window=400)
    play.primary(ack, releases=[ack])
    assert play.offer(c) == 101


def test_guests_without_scaling(play: Playbook) -> None:
    c, p, s = play.tcp(scale=0)
    play.client(c.syn())
    syn_ack = p.segment(SYN | ACK, at=0, window=1, without_scale=True)
    play.primary(syn_ack)
    play.secondary(s.segment(SYN | ACK, at=0, window=1, without_scale=True), releases=[syn_ack])
    play.client(c.ack())


def test_data_with_the_secondarys_syn(play: Playbook) -> None:
    _, p, s = play.tcp(client_port=443, guest_port=50000)
    syn = p.syn(payload=b"early")
    play.primary(syn)
    play.secondary(s.syn(payload=b"early"), releases=[syn])


def test_different_data_with_the_syns(play: Playbook) -> None:
    _, p, s = play.tcp(client_port=443, guest_port=50000)
    play.primary(p.syn(payload=b"early"))
    play.secondary(s.syn(payload=b"EARLY"), requests=["payload"])


def test_client_frames_wait_for_the_secondarys_numbers() -> None:
    """Observed, so the primary's SYN-ACK has gone out before the secondary's is there."""
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE))
    c, p, s = play.tcp()
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    ack, data = c.ack(), c.data(b"request")
    play.client(ack, data, unmirrored=True)
    play.secondary(s.syn_ack(), mirrors=[ack, data])


def test_observe_counts_a_handshake_that_differs() -> None:
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE))
    c, p, s = play.tcp()
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.secondary(s.syn_ack(mss=536))
    assert play.proxy.counters.divergences["handshake"] == 1
    play.after(10.0)
    assert not play.requests
