"""Segments that arrive for a connection."""

import pytest

from tests.frames import ACK, FIN, PSH, RST, SYN
from tests.guest.peer import Peer, new_machine

GET = b"GET /bytes/10 HTTP/1.1\r\n\r\n"


def echo(**how: object) -> Peer:
    return Peer(new_machine(), port=7, **how).open()  # type: ignore[arg-type]  # fields of Peer


def test_bytes_in_order_are_acknowledged_with_the_answer() -> None:
    peer = echo()
    (answer,) = peer.send(b"hello")
    assert (answer.flags, answer.ack, answer.payload) == (ACK | PSH, peer.seq, b"hello")


def test_a_segment_out_of_order_is_acknowledged_at_once_with_its_place() -> None:
    peer = echo()
    (first,) = peer.say(ACK, b"ccc", seq=peer.seq + 10)
    assert (first.ack, first.blocks) == (peer.seq, ((peer.seq + 10, peer.seq + 13),))
    (second,) = peer.say(ACK, b"bb", seq=peer.seq + 5)
    assert second.blocks == ((peer.seq + 5, peer.seq + 7), (peer.seq + 10, peer.seq + 13))
    (third,) = peer.say(ACK, b"ddd", seq=peer.seq + 13)
    assert third.blocks == ((peer.seq + 10, peer.seq + 16), (peer.seq + 5, peer.seq + 7))
    answers = peer.say(ACK, b"aaaaaBBxxx")
    assert answers[-1].payload == b"aaaaaBBxxxcccddd"
    assert answers[-1].ack == peer.seq + 16


def test_without_sack_the_acknowledgement_says_no_place() -> None:
    peer = echo(sack=False)
    (answer,) = peer.say(ACK, b"c", seq=peer.seq + 10)
    assert (answer.ack, answer.blocks) == (peer.seq, ())


def test_more_gaps_than_there_is_room_for_are_forgotten() -> None:
    peer = echo()
    for number in range(1, 12):
        peer.say(ACK, b"x", seq=peer.seq + 10 * number)
    peer.say(ACK, b"." * 100)
    assert peer.got == b"." * 100
    assert peer.seen[-1].ack == peer.seq + 100


def test_what_lies_beyond_the_window_is_cut_off() -> None:
    peer = echo(window=0)
    peer.send(b"a" * 1000)
    rest = b"b" * 7192 + b"c" * 100
    (answer,) = peer.say(ACK, rest[:1400])
    assert answer.ack == peer.seq + 1400


def test_a_repetition_is_acknowledged() -> None:
    peer = echo()
    peer.send(b"hello")
    (answer,) = peer.say(ACK, b"hello", seq=peer.seq - 5)
    assert (answer.flags, answer.ack, answer.payload) == (ACK, peer.seq, b"")


def test_a_keep_alive_is_answered() -> None:
    peer = echo()
    for payload in (b"", b"x"):
        (answer,) = peer.say(ACK, payload, seq=peer.seq - 1)
        assert (answer.flags, answer.seq, answer.ack) == (ACK, peer.nxt, peer.seq)


def test_a_segment_with_an_old_timestamp_is_refused() -> None:
    peer = echo()
    peer.clock += 5
    peer.send(b"a")
    peer.clock -= 1
    (answer,) = peer.say(ACK, b"b")
    assert (answer.ack, answer.payload) == (peer.seq, b"")
    assert peer.got == b"a"


def test_the_echoed_timestamp_is_that_of_the_segment_that_was_acknowledged() -> None:
    peer = echo()
    peer.clock = 200
    peer.say(ACK, b"c", seq=peer.seq + 10)  # behind a hole
    assert peer.seen[-1].times is not None
    assert peer.seen[-1].times[1] == 100
    peer.clock = 201
    answer = peer.send(b"a")[-1]
    assert answer.times is not None
    assert answer.times[1] == 201


@pytest.mark.parametrize(("offset", "ends"), [(0, True), (1, False), (-1, False), (100_000, False)])
def test_only_an_exact_reset_ends_a_connection(offset: int, ends: bool) -> None:
    peer = echo()
    answers = peer.say(RST, seq=peer.seq + offset)
    assert [one.flags for one in answers] == ([ACK] if offset == 1 else [])
    assert peer.machine.header.resets_in == ends


def test_a_syn_in_a_connection_is_challenged() -> None:
    peer = echo()
    for seq in (peer.seq, peer.seq + 100, peer.seq - 1):
        (answer,) = peer.say(SYN, seq=seq)
        assert (answer.flags, answer.ack) == (ACK, peer.seq)


def test_challenges_are_limited() -> None:
    peer = echo()
    frame = peer.frame(SYN)
    assert len(peer.machine.receive([frame] * 1500, peer.now)) == 1000
    assert len(peer.machine.receive([frame] * 1500, peer.now + 1)) == 1000


@pytest.mark.parametrize("off", [1, -9000])
def test_an_acknowledgement_of_what_was_never_sent_is_challenged(off: int) -> None:
    peer = echo()
    (answer,) = peer.say(ACK, b"hello", ack=peer.nxt + off)
    assert (answer.flags, answer.ack, answer.payload) == (ACK, peer.seq, b"")


def test_a_segment_without_an_acknowledgement_says_nothing() -> None:
    peer = echo()
    assert peer.say(0, b"hello") == []


def test_the_client_ends_first() -> None:
    peer = echo()
    answers = peer.send(b"bye", ACK | FIN)
    assert peer.got == b"bye"
    assert peer.ended
    assert answers[-1].ack == peer.seq
    assert peer.acknowledge() == []
    assert [one.flags for one in peer.say(ACK)] == [RST]  # nothing is left of it


def test_the_fin_may_come_before_the_bytes() -> None:
    peer = echo()
    peer.say(ACK | FIN, b"def", seq=peer.seq + 3)
    assert not peer.ended
    peer.say(ACK, b"abc")
    assert peer.got == b"abcdef"
    assert peer.ended


def close_from_the_guest(peer: Peer) -> None:
    peer.download(b"GET /bytes/10 HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert peer.ended


def test_the_guest_ends_first_and_lingers() -> None:
    peer = Peer(new_machine()).open()
    close_from_the_guest(peer)
    (answer,) = peer.send(b"", ACK | FIN)
    assert (answer.flags, answer.ack) == (ACK, peer.seq)
    (answer,) = peer.say(ACK | FIN, seq=peer.seq - 1)  # once more
    assert (answer.flags, answer.ack) == (ACK, peer.seq)
    peer.tick(until=peer.now + 59)
    assert peer.say(RST, seq=peer.seq + 1) != []
    peer.tick(until=peer.now + 10)
    assert [one.flags for one in peer.say(RST | ACK)] == []
    assert [one.flags for one in peer.say(ACK)] == [RST]  # it is over


def test_both_ends_end_at_once() -> None:
    peer = Peer(new_machine()).open()
    peer.send(b"GET /bytes/10 HTTP/1.1\r\nConnection: close\r\n\r\n")
    old = peer.nxt - 1
    peer.say(ACK | FIN, ack=old)  # it has not seen our FIN
    peer.seq += 1
    assert peer.acknowledge() == []
    (answer,) = peer.say(ACK | FIN, seq=peer.seq - 1)  # it lingers
    assert answer.ack == peer.seq


def test_a_client_that_never_ends_is_forgotten() -> None:
    peer = Peer(new_machine()).open()
    close_from_the_guest(peer)
    peer.send(b"more")  # nobody reads it
    assert peer.seen[-1].ack == peer.seq
    peer.tick(until=peer.now + 61)
    peer.machine.receive([], peer.now)
    assert peer.machine.next_timer() == float("inf")


def test_acknowledgements_count_though_our_window_is_closed() -> None:
    peer = echo(window=0)
    for _ in range(16):
        peer.send(b"x" * 1024)  # the echo cannot answer: both buffers fill up
    assert peer.seen[-1].window == 0
    before = len(peer.got)
    peer.window = 8000
    peer.acknowledge()
    assert len(peer.got) > before


def test_sequence_numbers_wrap() -> None:
    peer = Peer(new_machine(), port=7, seq=0xFFFFFFF0).open()
    for _ in range(5):
        peer.send(b"0123456789")
        peer.seq &= 0xFFFFFFFF
        peer.acknowledge()
    assert peer.got == b"0123456789" * 5


def test_a_frame_with_a_wrong_checksum_is_dropped() -> None:
    peer = Peer(new_machine(), port=7).open()
    frame = bytearray(peer.frame(ACK, b"hello"))
    frame[-1] ^= 1
    assert peer.machine.receive([bytes(frame)], peer.now) == []
    frame[-1] ^= 1
    frame[22] ^= 1  # TTL
    assert peer.machine.receive([bytes(frame)], peer.now) == []
    assert peer.machine.header.damaged == 2
