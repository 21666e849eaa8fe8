"""Client data on its way to the secondary: once, and again where it got lost."""

import dataclasses
import math

import pytest

from colo_compare.core.mirror import Mirror
from colo_compare.core.settings import OBSERVE, Settings
from tests.conversation import Endpoint
from tests.frames import ACK
from tests.playbook import ANYTHING, Playbook

QUIET = Settings(mirror_retry=math.inf, announce=False)
RETRY = Settings(mirror_retry=0.02, announce=False)


@pytest.fixture
def play() -> Playbook:
    return Playbook(QUIET)


def mirror_of(play: Playbook) -> Mirror:
    return play.proxy._dispatch.tcp.mirror


def observed() -> tuple[Playbook, Endpoint, Endpoint, Endpoint]:
    """An observed connection."""
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE))
    c, p, s = play.tcp()
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.secondary(s.syn_ack())
    play.client(c.ack())
    return play, c, p, s


# Again


def test_what_the_secondary_lost_is_repeated_before_the_client_would() -> None:
    play = Playbook(RETRY)
    c, p, s = play.connection()
    request = c.data(b"request")
    play.client(request)
    ack = p.ack()
    play.primary(ack)
    play.after(0.019)
    play.after(0.002, mirrors=[request])
    play.secondary(s.ack(), releases=[ack])
    play.after(5.0)


def test_repetitions_back_off() -> None:
    play = Playbook(RETRY)
    c, p, _ = play.connection()
    request = c.data(b"request")
    play.client(request)
    play.primary(p.ack())
    play.after(0.021, mirrors=[request])
    play.after(0.038)
    play.after(0.004, mirrors=[request])
    play.after(2.9, mirrors=ANYTHING)
    assert 5 <= play.proxy.counters.mirrored_again <= 9
    play.after(0.1, requests=["timeout"], mirrors=ANYTHING)


def test_only_what_the_primary_has_is_repeated() -> None:
    play = Playbook(RETRY)
    c, p, s = play.connection()
    one, two, three = c.data(b"one"), c.data(b"two"), c.data(b"three")
    play.client(one, two, three)
    ack = p.ack(7)
    play.primary(ack)
    play.secondary(s.ack(4))
    play.after(0.03, mirrors=[two])
    play.secondary(s.ack(7), releases=[ack])


def test_sack_of_the_secondary_says_at_once_what_is_missing(play: Playbook) -> None:
    c, p, s = play.connection()
    one, two = c.data(b"one"), c.data(b"two")
    play.client(one, two)
    ack = p.ack()
    play.primary(ack)
    play.secondary(s.segment(ACK, ack=1, blocks=((4, 7),)), mirrors=[one, two])
    play.secondary(s.segment(ACK, ack=1, blocks=((4, 7),)))
    play.secondary(s.ack(7), releases=[ack])


def test_sack_without_a_primary_that_waits_says_nothing(play: Playbook) -> None:
    c, _, s = play.connection()
    play.client(c.data(b"one"), c.data(b"two"))
    play.secondary(s.segment(ACK, ack=1, blocks=((4, 7),)))


def test_a_waiting_that_ended_by_itself_is_forgotten() -> None:
    play = Playbook(RETRY)
    c, p, s = play.connection()
    play.client(c.data(b"one"))
    held = p.ack()
    play.primary(held)
    play.secondary(s.ack(), releases=[held])
    play.after(0.1)
    assert not mirror_of(play).lagging
    assert not mirror_of(play).in_flight


def test_a_burst_is_bounded() -> None:
    play = Playbook(RETRY)
    c, p, _ = play.connection()
    requests = [c.data(b"x") for _ in range(50)]
    play.client(*requests)
    play.primary(p.ack())
    play.after(0.021, mirrors=requests[:32])


def test_two_that_wait_are_repeated_each_at_its_time() -> None:
    play = Playbook(RETRY)
    c, p, _ = play.connection(client_port=1)
    c2, p2, _ = play.connection(client_port=2)
    play.after(1.0)
    one, two = c.data(b"one"), c2.data(b"two")
    play.client(one)
    play.client(two)
    play.primary(p.ack())
    play.after(0.01)
    play.primary(p2.ack())
    play.after(0.011, mirrors=[one])
    play.after(0.01, mirrors=[two])


def test_nothing_is_kept_beyond_the_bound_of_a_flow() -> None:
    play = Playbook(dataclasses.replace(QUIET, max_flow_bytes=300))
    c, p, _ = play.connection()
    requests = [c.data(bytes(100)) for _ in range(5)]
    play.client(*requests)
    p.rcv = 1
    play.request(requests=["operator"])
    play.pause()
    play.commit(again=requests[:2])


def test_what_both_have_acknowledged_is_forgotten(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.data(b"one"), c.data(b"two"))
    play.primary(p.ack(4), releases=ANYTHING)
    play.secondary(s.ack(), releases=ANYTHING)
    (flow,) = mirror_of(play).in_flight
    assert flow.in_flight is not None
    assert len(flow.in_flight.segments) == 1
    ack = p.ack()
    play.primary(ack, releases=[ack])
    play.secondary(s.ack())
    assert not mirror_of(play).in_flight


def test_a_lost_secondary_needs_nothing_more(play: Playbook) -> None:
    c, p, _ = play.connection()
    play.client(c.data(b"one"))
    held = p.ack()
    play.primary(held)
    play.lose_secondary(releases=[held])
    assert not mirror_of(play).in_flight
    play.after(10.0)


# Numbers that are not known yet


def test_very_many_client_frames_for_a_secondary_without_numbers() -> None:
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE))
    c, p, s = play.tcp()
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    requests = [c.data(b"x") for _ in range(70)]
    for request in requests:
        play.client(request, unmirrored=True)
    assert play.proxy.counters.client_discarded["unplaced"] == 6
    play.secondary(s.syn_ack(), mirrors=requests[:64])


def test_a_commit_in_a_handshake_forgets_what_waited(play: Playbook) -> None:
    c, p, _ = play.tcp()
    syn = c.syn()
    play.client(syn)
    held = p.syn_ack()
    play.primary(held)
    play.checkpoint(releases=[held])
    play.client(c.data(b"x"))


def test_an_acknowledgement_of_what_the_secondary_has_not_said_is_cut() -> None:
    """Observed: the primary's answer is out already. A guest refuses what acknowledges more than it said."""
    play, c, p, s = observed()
    answer = p.data(b"answer")
    play.primary(answer, releases=[answer])
    thanks = c.data(b"thanks", ack=7)
    play.client(thanks)
    play.secondary(s.data(b"ans"), mirrors=[thanks])
    play.secondary(s.data(b"wer"), mirrors=[thanks])
    play.secondary(s.ack())


def test_a_client_without_timestamps(play: Playbook) -> None:
    c, p, s = play.connection(times=False)
    play.client(c.data(b"x"))
    play.both(p.data(b"y"), s.data(b"y"))
    play.secondary(s.data(b"z"))


def test_a_segment_of_a_connection_that_nobody_knows(play: Playbook) -> None:
    c, p, s = play.connection(client_port=1)
    play.client(c.fin())
    play.both(p.fin(), s.fin())
    play.client(c.ack())
    play.after(300.0)  # forgotten, offset and all: what is unknown may differ from here on
    c, _, _ = play.tcp(client_port=2, primary_isn=7, secondary_isn=7)
    play.client(c.ack(ack=1, at=1))


def test_client_data_out_of_order(play: Playbook) -> None:
    c, p, s = play.connection()
    two, one = c.data(b"two", at=4), c.data(b"one", at=1)
    play.client(two, one)
    ack = p.ack(7)
    play.primary(ack)
    play.secondary(s.segment(ACK, ack=4))
    play.secondary(s.segment(ACK, ack=4, blocks=((9, 12),)), mirrors=[two])
    play.secondary(s.ack(7), releases=[ack])


def test_what_cannot_be_translated_yet_is_not_repeated(play: Playbook) -> None:
    """A client that sends before it has heard anything: only its SYN makes sense to anybody."""
    c, _, _ = play.tcp()
    syn = c.syn()
    play.client(syn)
    play.client(c.data(b"x", ack=1), unmirrored=True)
    play.request(requests=["operator"])
    play.pause()
    play.commit(again=[syn])


def test_nothing_is_kept_of_a_flow_that_is_gone() -> None:
    play = Playbook(dataclasses.replace(QUIET, max_half_open=2))
    for port in (1, 2, 3):
        c, _, _ = play.tcp(client_port=port)
        play.client(c.syn())
    assert len(mirror_of(play).in_flight) == 2


def test_a_commit_ends_a_waiting() -> None:
    play = Playbook(RETRY)
    c, p, _ = play.connection()
    play.client(c.data(b"request"))
    held = p.ack()
    play.primary(held)
    play.checkpoint(releases=[held])
    play.after(2.0)


def test_a_slow_secondary_is_given_its_usual_time() -> None:
    play = Playbook(RETRY)
    c, p, s = play.connection()
    for _ in range(60):
        request = c.data(b"x")
        play.client(request)
        ack = p.ack()
        play.primary(ack)
        play.after(0.05, mirrors=ANYTHING)
        play.secondary(s.ack(), releases=[ack])
    assert mirror_of(play).lag == pytest.approx(0.05, rel=0.1)
    request = c.data(b"x")
    play.client(request)
    play.primary(p.ack())
    play.after(0.15)
    play.after(0.15, mirrors=[request])


def test_each_waiting_has_a_time_of_its_own() -> None:
    """What was waited for before, and came, says nothing of when this is due."""
    play = Playbook(RETRY)
    c, p, s = play.connection()
    play.after(0.015)  # the handshake has just waited, too
    one = c.data(b"one")
    play.client(one)
    ack = p.ack()
    play.primary(ack)
    play.after(0.019)
    play.after(0.002, mirrors=[one])
    play.secondary(s.ack(), releases=[ack])
    two = c.data(b"two")
    play.client(two)
    play.primary(p.ack())
    play.after(0.019)
    play.after(0.002, mirrors=[two])


def test_a_commit_that_copies_nothing_ends_a_waiting() -> None:
    play = Playbook(dataclasses.replace(RETRY, copies_state=False))
    c, p, _ = play.connection()
    play.client(c.data(b"request"))
    held = p.ack()
    play.primary(held)
    play.checkpoint(releases=[held])
    play.after(2.0)
    assert not mirror_of(play).lagging
