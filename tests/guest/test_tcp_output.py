"""What a connection sends: windows, retransmission, recovery, probes."""

from itertools import pairwise

import pytest

from colo_compare.demo.content import blocks
from tests.frames import ACK, FIN, PSH, RST, tcp_options
from tests.guest.peer import Peer, new_machine, take_apart

MSS = 988  # 1,000 minus timestamps


def get(size: int, close: bool = False) -> bytes:
    return b"GET /bytes/%d HTTP/1.1\r\n%s\r\n" % (size, b"Connection: close\r\n" if close else b"")


def content(size: int) -> bytes:
    return b"".join(blocks(size))


def head(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size


def test_full_segments_go_first_and_the_last_one_is_pushed() -> None:
    peer = Peer(new_machine()).open()
    answers = peer.send(get(3000))
    total = len(head(3000)) + 3000
    assert [len(one.payload) for one in answers] == [MSS, MSS, MSS, total - 3 * MSS]
    assert [one.flags for one in answers] == [ACK, ACK, ACK, ACK | PSH]
    assert peer.got == head(3000) + content(3000)


def test_the_client_s_window_is_never_passed() -> None:
    peer = Peer(new_machine(), window=1500).open()
    answers = peer.send(get(5000))
    assert sum(len(one.payload) for one in answers) == MSS  # the rest of the window holds no full segment
    (more,) = peer.acknowledge()
    assert len(more.payload) == MSS


def test_a_small_window_is_used_when_nothing_else_is_under_way() -> None:
    peer = Peer(new_machine(), window=100).open()
    (answer,) = peer.send(get(5000))
    assert len(answer.payload) == 100


def test_the_window_scale_counts() -> None:
    peer = Peer(new_machine(), window=2, scale=10)
    peer.syn()
    peer.seq += 1
    answers = peer.send(get(5000))
    assert sum(len(one.payload) for one in answers) == 2 * MSS


def test_slow_start() -> None:
    peer = Peer(new_machine(), window=60000, mss=200)
    peer.syn()
    peer.seq += 1
    answers = peer.send(get(7000))
    assert len(answers) == 10  # RFC 6928
    assert len(peer.acknowledge()) == 20


def test_a_closed_window_is_probed_until_it_opens() -> None:
    peer = Peer(new_machine(), window=0).open()
    assert sum(len(one.payload) for one in peer.send(get(5000))) == 0
    sent = []
    for _ in range(5):
        before = peer.now
        (probe,) = peer.tick(until=peer.machine.next_timer())
        assert (probe.seq, probe.payload) == (peer.nxt - 1, b"")
        sent.append(peer.now - before)
        peer.acknowledge()  # it is there, its window is not
    assert sent == sorted(sent)
    peer.window = 3000
    assert len(peer.acknowledge()[0].payload) == MSS


def test_probes_go_on_for_as_long_as_the_client_answers() -> None:
    peer = Peer(new_machine(), window=0).open()
    peer.send(get(5000))
    for _ in range(30):
        peer.tick(until=peer.now + 60)
        peer.acknowledge()
    peer.window = 3000
    assert peer.acknowledge() != []


def test_lost_bytes_are_sent_again_after_a_time_out_slowly() -> None:
    peer = Peer(new_machine()).open()
    peer.hear(peer.machine.receive([], peer.now))
    peer.machine.receive([peer.frame(ACK, get(3000))], peer.now)  # nothing of the answer arrives
    peer.seq += len(get(3000))
    (again,) = peer.tick(until=peer.machine.next_timer())
    assert len(again.payload) == MSS
    assert peer.machine.header.timeouts == 1
    assert [len(one.payload) for one in peer.acknowledge()] == [MSS, MSS]
    peer.acknowledge()
    assert peer.got == head(3000) + content(3000)


def test_each_time_out_doubles_the_next_until_the_client_is_given_up() -> None:
    peer = Peer(new_machine()).open()
    peer.send(get(100))
    times = []
    while True:
        due = peer.machine.next_timer()
        said = peer.tick(until=due)
        if any(one.flags & RST for one in said):
            break
        times += [peer.now] if said else []
        assert len(times) < 20
    assert len(times) == 15
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps[1] == pytest.approx(2 * gaps[0], rel=0.01)
    assert max(gaps) == 60


def lose_one(peer: Peer, size: int = 6000) -> list[bytes]:
    """Ask for bytes, lose the second segment of the answer, and give the segments behind it."""
    peer.window = 60000
    frames = peer.machine.receive([peer.frame(ACK, get(size))], peer.now)
    peer.seq += len(get(size))
    peer.hear(frames[:1])
    return frames[2:]


def test_three_duplicates_bring_the_lost_segment_at_once() -> None:
    peer = Peer(new_machine(), sack=False).open()
    behind = lose_one(peer)
    assert len(behind) == 5
    assert peer.acknowledge() == []
    assert peer.acknowledge() == []  # one duplicate, by now
    assert peer.acknowledge() == []
    (again,) = peer.acknowledge()
    assert (again.seq + len(again.payload)) & 0xFFFFFFFF == peer.nxt
    assert len(again.payload) == MSS
    peer.hear(behind)
    peer.acknowledge()
    assert peer.got == head(6000) + content(6000)
    assert peer.machine.header.timeouts == 0


def test_a_partial_acknowledgement_brings_the_next_hole() -> None:
    peer = Peer(new_machine(), sack=False).open()
    behind = lose_one(peer)
    assert [len(peer.acknowledge()) for _ in range(4)] == [0, 0, 0, 1]
    peer.hear(behind[1:])  # the first of those behind it was lost too
    (again,) = peer.acknowledge()
    assert len(again.payload) == MSS
    peer.hear(behind[1:])
    assert peer.got == head(6000) + content(6000)


def sacked(peer: Peer, *blocks: tuple[int, int]) -> list[int]:
    """Acknowledge with blocks that begin and end so many segments behind what came in order."""
    base = peer.nxt
    options = tcp_options(
        times=(peer.clock, peer.echo),
        blocks=tuple((base + start * MSS, base + end * MSS) for start, end in blocks),
    )
    said = peer.machine.receive([peer.frame(ACK, options=options)], peer.now)
    return [(one.seq - base) // MSS for one in take_apart(said)]  # which do not arrive


def test_sack_says_at_once_which_segments_are_lost() -> None:
    peer = Peer(new_machine()).open()
    lose_one(peer)
    peer.acknowledge()
    assert sacked(peer, (1, 2)) == []
    assert sacked(peer, (3, 5), (1, 2)) == [
        0,
        2,
    ]  # three segments lie beyond it: it is lost, and so is the third
    assert sacked(peer, (3, 5), (1, 2)) == []  # both are under way


def test_what_is_lost_again_is_sent_again_when_it_should_have_come() -> None:
    peer = Peer(new_machine()).open()
    lose_one(peer)
    peer.acknowledge()
    assert sacked(peer, (1, 4)) == [0]
    peer.now += 0.001
    assert sacked(peer, (1, 4)) == []
    peer.now += 0.050
    assert sacked(peer, (1, 5)) == [0]


def test_blocks_that_cannot_be_say_nothing() -> None:
    peer = Peer(new_machine()).open()
    lose_one(peer)
    peer.acknowledge()
    assert [sacked(peer, block) for block in ((50, 60), (5, 3))] == [[], []]
    assert sacked(peer, (-9, -3)) == [0]  # three duplicates they are all the same
    assert sacked(peer, (-1, 3)) == []


def test_the_fin_is_sent_again_too() -> None:
    peer = Peer(new_machine()).open()
    frames = peer.machine.receive([peer.frame(ACK, get(10, close=True))], peer.now)
    peer.seq += len(get(10, close=True))
    assert len(frames) == 1
    (again,) = peer.tick(until=peer.machine.next_timer())
    assert again.flags & FIN
    assert again.payload == head(10)[:-2] + b"Connection: close\r\n\r\n" + content(10)


def test_a_fin_alone_is_sent_again() -> None:
    peer = Peer(new_machine(), port=7).open()
    peer.send(b"a")
    peer.acknowledge()
    peer.machine.receive([peer.frame(ACK | FIN)], peer.now)
    peer.seq += 1
    (again,) = peer.tick(until=peer.machine.next_timer())
    assert (again.flags & (ACK | FIN), again.payload) == (ACK | FIN, b"")


def test_a_window_that_closes_over_lost_bytes_is_no_deadlock() -> None:
    peer = Peer(new_machine()).open()
    peer.machine.receive([peer.frame(ACK, get(3000))], peer.now)
    peer.seq += len(get(3000))
    peer.window = 0
    peer.acknowledge()
    (again,) = peer.tick(until=peer.machine.next_timer())
    assert len(again.payload) == MSS
    peer.window = 8000
    assert peer.acknowledge() != []


def test_an_application_that_reads_again_opens_the_window() -> None:
    peer = Peer(new_machine(), port=7, window=0).open()
    for _ in range(16):
        peer.send(b"x" * 1024)
    assert peer.seen[-1].window == 0
    peer.window = 60000
    for _ in range(30):
        peer.acknowledge()
    assert peer.got == b"x" * 16384
    assert peer.seen[-1].window == 8192


def test_a_client_that_is_gone_is_reset_by_who_takes_its_place() -> None:
    peer = Peer(new_machine()).open()
    (answer,) = Peer(peer.machine, own_port=40001).say(ACK, b"?", ack=1)
    assert answer.flags == RST
