"""The client's half of TCP."""

import dataclasses
import math

import pytest

from colo_compare.core.settings import Settings
from colo_compare.core.sides import CLIENT
from colo_compare.core.tcp_client import TcpClient
from colo_compare.core.tcp_flow import CLOSED, ESTABLISHED, HALF_OPEN, TcpFlow
from colo_compare.wire.frame import parse_frame
from tests.frames import ACK, FIN, RST, SYN, dissect
from tests.playbook import Playbook

QUIET = Settings(mirror_retry=math.inf, announce=False)


@pytest.fixture
def play() -> Playbook:
    return Playbook(QUIET)


def half_of(play: Playbook) -> TcpClient:
    return play.proxy._dispatch.tcp.client


def flow_of(play: Playbook) -> TcpFlow:
    (flow,) = half_of(play).table.flows.values()
    return flow


def test_a_connection_grows_up_and_ends(play: Playbook) -> None:
    c, p, s = play.tcp()
    play.client(c.syn())
    assert flow_of(play).state == HALF_OPEN
    play.both(p.syn_ack(), s.syn_ack())
    play.client(c.ack())
    assert flow_of(play).state == ESTABLISHED
    play.client(c.fin())
    play.both(p.fin(), s.fin())
    assert flow_of(play).state == ESTABLISHED
    play.client(c.ack())
    assert flow_of(play).state == CLOSED


def test_a_reset_ends_it_at_once(play: Playbook) -> None:
    c, _, _ = play.connection()
    play.client(c.segment(RST))
    assert flow_of(play).state == CLOSED


def test_a_reset_of_nothing_makes_no_flow(play: Playbook) -> None:
    c, _, _ = play.tcp()
    play.client(c.segment(RST))
    assert len(half_of(play).table.flows) == 0


def test_without_a_secondary_no_flow_is_made(play: Playbook) -> None:
    play.lose_secondary()
    c, _, _ = play.tcp()
    play.client(c.syn(), unmirrored=True)
    play.client(c.segment(RST), unmirrored=True)
    assert len(half_of(play).table.flows) == 0


def test_a_client_that_goes_back_and_forth_keeps_its_place(play: Playbook) -> None:
    c, p, s = play.connection(client_isn=0xFFFFFFF0)
    for start in (1, 21, 11, 1, 31):
        play.client(c.data(b"0123456789", at=start, ack=1))
    ack = p.ack(41)
    play.primary(ack)
    play.secondary(s.ack(41), releases=[ack])


def test_a_segment_of_another_world_does_not_move_its_place(play: Playbook) -> None:
    """Two to the thirty and more beyond: no window reaches there."""
    c, p, s = play.connection()
    play.client(c.data(b"x", at=(1 << 30) + 100, ack=1))
    play.client(c.data(b"y", at=1, ack=1))
    ack = p.ack(2)
    play.primary(ack)
    play.secondary(s.ack(2), releases=[ack])


def test_a_syn_in_the_middle_changes_nothing(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.segment(SYN, at=700))
    play.both(p.data(b"x"), s.data(b"x"))
    play.client(c.ack())


def test_a_client_that_tries_again_with_another_number(play: Playbook) -> None:
    c, _, _ = play.tcp(client_isn=100)
    play.client(c.syn())
    c2, p2, s2 = play.tcp(client_isn=900, primary_isn=5, secondary_isn=6)
    play.client(c2.syn())
    play.both(p2.syn_ack(), s2.syn_ack())
    play.client(c2.data(b"x"))
    play.both(p2.data(b"y"), s2.data(b"y"))


def test_a_client_that_answers_a_guest_without_scaling(play: Playbook) -> None:
    c, p, s = play.tcp(client_port=443, guest_port=50000, scale=0)
    play.both(p.syn(window=1), s.syn(window=1))
    play.client(c.segment(SYN | ACK, at=0, without_scale=True))
    play.secondary(s.ack(window=100))
    ack = p.ack(window=300)
    play.primary(ack, releases=[ack])
    assert play.offer(c) == 101


def test_a_client_that_answers_with_scaling(play: Playbook) -> None:
    c, p, s = play.tcp(client_port=443, guest_port=50000)
    play.both(p.syn(window=1), s.syn(window=1))
    play.client(c.syn_ack())
    play.client(c.syn_ack())
    play.secondary(s.ack(window=100))
    ack = p.ack(window=300)
    play.primary(ack, releases=[ack])
    assert play.offer(c) == 1 + (100 << 7)


def test_what_the_client_acknowledges_had_gone_out_before() -> None:
    """In mid-stream, after a restart: the first that is heard of the stream may be a repetition."""
    play = Playbook(QUIET, protected=False)
    c, p, s = play.tcp()
    for end in (c, p, s):
        end.nxt, end.rcv = 5000, 5000
    play.pause()
    play.commit()
    play.secondary(s.ack())
    again = p.data(b"again", at=4990)
    play.primary(again)
    play.client(c.ack(4995), releases=[again])


def test_a_full_table_takes_no_new_connection_and_every_old_one() -> None:
    play = Playbook(dataclasses.replace(QUIET, max_flows=2, max_half_open=2))
    play.connection(client_port=1)
    play.connection(client_port=2)
    c, _, _ = play.tcp(client_port=3)
    play.client(c.syn(), mirrors=[], held=True, requests=["table_full"])
    assert play.proxy.counters.client_discarded["table_full"] == 1
    play.kept = []
    play.fail()
    c, p, _ = play.tcp(client_port=4)
    for end in (c, p):
        end.nxt, end.rcv = 500, 500
    c.conversation.secondary.become(p)
    play.client(c.ack())
    assert play.proxy.flows()["half_open"] == 1


def test_a_connection_of_which_nobody_knows_the_numbers_goes_silent() -> None:
    """A promotion before any commit: the client's bytes would reach a guest that means something else."""
    play = Playbook(dataclasses.replace(QUIET, copies_state=False), protected=False)
    c, p, _ = play.tcp()
    for end in (c, p):
        end.nxt, end.rcv = 500, 500
    early = p.data(b"x")
    play.primary(early)
    play.pause()
    play.commit(releases=[early])
    play.promote()
    play.client(c.data(b"y"), held=True)
    assert play.proxy.counters.client_discarded["unplaced"] == 1
    play.kept = []
    play.client(c.segment(SYN, at=900), unmirrored=True)


def test_an_error_of_the_network_is_translated_for_each_guest(play: Playbook) -> None:
    c, p, _ = play.connection(primary_isn=1000, secondary_isn=5000)
    error = c.icmp(3, p.data(b"x").data[14:42], code=4)
    play.proxy.receive(CLIENT, [parse_frame(error.data, 0, True)], play.now)
    actions = play.proxy.take_actions()
    assert actions.to_primary[0].data == error.data
    assert dissect(actions.to_secondary[0].data).payload[-4:] == (5001).to_bytes(4, "big")


def test_an_error_about_nothing_known_goes_as_it_is(play: Playbook) -> None:
    c, p, _ = play.tcp()
    quoted = p.data(b"x").data[14:42]
    play.client(c.icmp(3, quoted, code=4))
    play.client(c.icmp(3, quoted[:20], code=4))
    play.lose_secondary()
    play.client(c.icmp(3, quoted, code=4), unmirrored=True)


def test_repeated_syns(play: Playbook) -> None:
    c, p, s = play.tcp()
    play.client(c.syn())
    play.client(c.syn())
    play.both(p.syn_ack(), s.syn_ack())
    play.client(c.syn())
    play.client(c.ack())
    play.client(c.segment(SYN, at=5000))
    play.both(p.data(b"x"), s.data(b"x"))


def test_data_with_a_fin(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.segment(FIN | ACK, b"bye"))
    ack = p.ack(5)
    play.primary(ack)
    play.secondary(s.ack(5), releases=[ack])


def test_a_new_connection_on_the_ports_of_one_that_was_picked_up() -> None:
    play = Playbook(QUIET, protected=False)
    c, p, s = play.tcp()
    for end in (c, p, s):
        end.nxt, end.rcv = 5000, 5000
    play.pause()
    play.commit()
    play.both(p.data(b"old"), s.data(b"old"))
    c, p, s = play.tcp(client_isn=70_000, primary_isn=80_000, secondary_isn=90_000)
    play.client(c.syn())
    play.both(p.syn_ack(), s.syn_ack())
    play.client(c.data(b"x"))
    play.both(p.data(b"y"), s.data(b"y"))


def test_an_old_acknowledgement_takes_nothing_back(play: Playbook) -> None:
    c, p, s = play.connection()
    old = c.ack()
    play.both(p.data(b"one"), s.data(b"one"))
    play.client(c.ack())
    play.client(old)
    play.primary(p.data(b"twothree"))
    s.data(b"two")
    play.secondary(s.data(b"three"))
    assert [report.ack for report in play.reports] == [(s.isn + 4) & 0xFFFFFFFF]
    play.client(c.ack())
    assert len(play.reports) == 2
