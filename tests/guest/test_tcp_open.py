"""Handshakes, in both directions."""

import pytest

from colo_compare.guest import Geometry, Noise
from tests.frames import ACK, CLIENT_IP4, GUEST_IP4, RST, SYN, tcp_options
from tests.guest.peer import Peer, arp_message, new_machine, solicit, take_apart

LARGE = Geometry(connections=4, send_bytes=1 << 17, receive_bytes=1 << 18, entries=8, value_bytes=4096)


@pytest.mark.parametrize("version", [4, 6])
def test_a_syn_is_answered_with_all_that_it_offers(version: int) -> None:
    peer = Peer(new_machine(LARGE), version=version, scale=7)
    if version == 6:
        peer.machine.receive([solicit()], peer.now)
    (answer,) = peer.syn()
    assert answer.flags == SYN | ACK
    assert answer.ack == peer.seq + 1
    assert (answer.mss, answer.scale, answer.sack_permitted) == (1460 if version == 4 else 1440, 3, True)
    assert answer.times is not None
    assert answer.times[1] == peer.clock
    assert answer.window == 0xFFFF
    peer.seq += 1
    assert peer.acknowledge() == []
    assert peer.machine.header.opened == 1


def test_options_that_are_not_offered_are_not_used() -> None:
    peer = Peer(new_machine(LARGE), times=False, sack=False, mss=None)
    (answer,) = peer.syn()
    assert (answer.scale, answer.sack_permitted, answer.times) == (None, False, None)
    peer.seq += 1
    peer.acknowledge()
    answers = peer.send(b"GET /bytes/3000 HTTP/1.1\r\n\r\n")
    assert max(len(one.payload) for one in answers) == 536  # without an MSS option (RFC 9293, 3.7.1)
    assert all(one.times is None for one in peer.seen)


def test_the_third_ack_may_bring_a_request() -> None:
    peer = Peer(new_machine())
    peer.syn()
    peer.seq += 1
    peer.send(b"GET /bytes/5 HTTP/1.1\r\n\r\n")
    assert peer.got.endswith(b"\r\n\r\n\0\0\0\0\0")


def test_a_syn_that_comes_twice_is_answered_twice() -> None:
    peer = Peer(new_machine())
    (first,) = peer.syn()
    (second,) = peer.syn()
    assert (second.flags, second.seq, second.ack) == (SYN | ACK, first.seq, first.ack)


def test_a_syn_ack_is_sent_again_until_the_client_is_given_up() -> None:
    peer = Peer(new_machine())
    peer.syn()
    again = peer.tick(until=200.0)
    assert [one.flags for one in again] == [SYN | ACK] * 5
    assert peer.machine.next_timer() == float("inf")
    peer.machine.receive([arp_message(2)], peer.now)  # that address is old by now
    assert [one.flags for one in peer.say(ACK)] == [RST]


def test_an_ack_of_something_else_is_reset() -> None:
    peer = Peer(new_machine())
    peer.syn()
    peer.seq += 1
    (answer,) = peer.say(ACK, ack=peer.nxt + 1)
    assert (answer.flags, answer.seq) == (RST, peer.nxt + 1)
    assert peer.acknowledge() == []  # the real client is still welcome
    assert peer.machine.header.opened == 1


def test_a_reset_ends_a_handshake() -> None:
    peer = Peer(new_machine())
    peer.syn()
    peer.seq += 1
    assert peer.say(RST) == []
    assert peer.machine.header.resets_in == 1
    assert peer.tick(until=100.0) == []
    assert peer.machine.next_timer() == float("inf")


def test_nobody_listens_on_other_ports() -> None:
    peer = Peer(new_machine(), port=81)
    (answer,) = peer.syn()
    assert (answer.flags, answer.seq, answer.ack) == (RST | ACK, 0, peer.seq + 1)
    (answer,) = peer.say(ACK, ack=777)
    assert (answer.flags, answer.seq) == (RST, 777)
    assert peer.say(RST) == []


def test_a_full_table_refuses_without_a_word() -> None:
    machine = new_machine()
    for port in range(4):
        Peer(machine, own_port=port + 1).open()
    assert Peer(machine, own_port=9).syn() == []
    assert machine.header.refused == 1


def test_who_lingers_longest_makes_room() -> None:
    machine = new_machine()
    for port in range(4):
        peer = Peer(machine, own_port=port + 1, now=1.0 + port).open()
        if port < 2:
            peer.download(b"GET /bytes/1 HTTP/1.1\r\nConnection: close\r\n\r\n")
            peer.send(b"", ACK | 1)
    Peer(machine, own_port=9, now=9.0).open()
    assert [one.flags for one in Peer(machine, own_port=1, now=9.0).say(ACK, ack=1)] == [
        RST
    ]  # it is forgotten
    assert Peer(machine, own_port=2, now=9.0).say(RST) == []


def test_initial_sequence_numbers_depend_on_the_connection_and_the_clock() -> None:
    def isn(own_port: int, now: float) -> int:
        (answer,) = Peer(new_machine(), own_port=own_port, now=now).syn()
        return answer.seq

    assert isn(1, 1.0) == isn(1, 1.0)
    assert isn(1, 1.0) != isn(2, 1.0)
    assert (isn(1, 2.0) - isn(1, 1.0)) & 0xFFFFFFFF == 250_000  # RFC 6528: a tick each 4 microseconds


def test_random_initial_sequence_numbers_come_from_the_noise() -> None:
    def isn(seed: int) -> int:
        (answer,) = Peer(new_machine(noise=Noise(seed=seed, random_isn=True))).syn()
        return answer.seq

    assert isn(1) == isn(1)
    assert isn(1) != isn(2)


def test_time_wait_ends_for_a_newer_syn() -> None:
    machine = new_machine()
    peer = Peer(machine).open()
    peer.download(b"GET /bytes/1 HTTP/1.1\r\nConnection: close\r\n\r\n")
    peer.send(b"", ACK | 1)
    old = peer.nxt
    assert [one.flags for one in peer.syn()] == [ACK]  # the same clock, an old number: not a new one
    peer.clock += 10
    (answer,) = peer.syn()
    assert answer.flags == SYN | ACK
    assert 0 < (answer.seq - old) & 0xFFFFFFFF < 1 << 31


def test_the_guest_calls_and_sends_and_takes_an_answer() -> None:
    machine = new_machine()
    peer = Peer(machine, port=50001, own_port=9000)
    (syn,) = take_apart(machine.call("10.0.0.1", 9000, 2000, peer.now, 50001))
    assert (syn.flags, syn.source_port, syn.ack) == (SYN, 50001, 0)
    assert (syn.mss, syn.sack_permitted, syn.scale) == (1460, True, 0)
    peer.hear([syn.data])
    options = tcp_options(mss=1000, times=(peer.clock, peer.echo))
    answers = peer.say(SYN | ACK, options=options)
    peer.seq += 1
    assert sum(len(one.payload) for one in answers) == 2000
    assert answers[-1].flags & 1  # FIN
    peer.acknowledge()
    peer.send(b"thanks", ACK | 1)
    assert machine.header.call_answer == 6
    assert machine.header.call_state == 2


def test_a_call_to_who_is_not_known_asks_for_the_address_first() -> None:
    machine = new_machine()
    (question,) = machine.call("10.0.0.1", 9000, 1, 1.0)
    assert question[12:14] == b"\x08\x06"
    (syn,) = take_apart(machine.receive([arp_message(2)], 1.1))
    assert (syn.flags, syn.source, syn.target) == (SYN, GUEST_IP4, CLIENT_IP4)


def test_a_refused_call_is_over() -> None:
    machine = new_machine()
    peer = Peer(machine, port=50001, own_port=9000)
    peer.hear(machine.call("10.0.0.1", 9000, 1, peer.now, 50001))
    assert peer.say(RST | ACK, ack=peer.nxt + 1) == []  # of something that was not sent
    assert machine.next_timer() < float("inf")
    peer.say(RST | ACK)
    assert machine.header.resets_in == 1
    machine.call("10.0.0.1", 9000, 1, peer.now, 50001)
    with pytest.raises(ValueError, match="port 50001 is in use"):
        machine.call("10.0.0.1", 9000, 1, peer.now, 50001)


def test_a_wrong_answer_to_a_call_is_reset() -> None:
    machine = new_machine()
    peer = Peer(machine, port=50001, own_port=9000)
    peer.hear(machine.call("10.0.0.1", 9000, 1, peer.now, 50001))
    (answer,) = peer.say(SYN | ACK, ack=peer.nxt + 5)
    assert (answer.flags, answer.seq) == (RST, peer.nxt + 5)


def test_both_ends_call_at_once() -> None:
    machine = new_machine()
    peer = Peer(machine, port=50001, own_port=9000)
    peer.hear(machine.call("10.0.0.1", 9000, 3, peer.now, 50001))
    (answer,) = peer.syn()
    assert (answer.flags, answer.ack) == (SYN | ACK, peer.seq + 1)
    peer.seq += 1
    peer.acknowledge()
    assert machine.header.opened == 1
    assert peer.got == b"\0\0\0"
