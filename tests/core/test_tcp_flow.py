"""One connection by itself."""

import pytest

from colo_compare.core.hold import Held
from colo_compare.core.stream import NOWHERE
from colo_compare.core.tcp_flow import CLOSED, Clamp, ClientSegment, Guest, InFlight, TcpFlow
from colo_compare.wire.frame import Frame, parse_frame
from tests.conversation import Clock, Conversation, Endpoint, Packet
from tests.frames import ACK, SYN


@pytest.fixture
def flow() -> TcpFlow:
    return TcpFlow(b"key", 0.0, 0)


def ends() -> tuple[Endpoint, Endpoint, Endpoint]:
    talk = Conversation(Clock(1.0))
    talk.client.isn, talk.primary.isn, talk.secondary.isn = 100, 1000, 5000
    talk.view_isn = 1000
    return talk.client, talk.primary, talk.secondary


def parsed(packet: Packet, inbound: bool = False) -> Frame:
    return parse_frame(packet.data, 0, inbound)


def held(flow: TcpFlow, frame: Frame | None = None) -> Held:
    return Held(flow, frame or Frame(b"", 0), None, 0.0)


# A guest


def test_what_a_frame_says_of_a_guest() -> None:
    _, p, _ = ends()
    guest = Guest()
    guest.note(parsed(p.syn()), 1001, NOWHERE, 64240)
    assert (guest.end, guest.ack, guest.window, guest.settled) == (1001, NOWHERE, 64240, False)
    guest.note(parsed(p.ack(5)), 1001, 105, 500)
    guest.note(parsed(p.ack(3)), 900, 103, 9999)
    assert (guest.end, guest.ack, guest.window, guest.settled) == (1001, 105, 500, True)
    guest.note(parsed(p.ack(5)), 1001, 105, 700)
    assert guest.window == 700
    guest.note(parsed(p.segment(0x10)), 1001, NOWHERE, 1)
    assert guest.window == 700


def test_the_newest_time_of_a_guest_counts_also_at_the_wrap() -> None:
    _, p, _ = ends()
    guest = Guest()
    for tsval in (0xFFFFFFF0, 5, 0xFFFFFFFF):
        guest.note(parsed(p.segment(ACK, tsval=tsval)), 1, 1, 1)
    assert guest.tsval == 5


def test_becoming_equal_leaves_no_syn() -> None:
    _, p, _ = ends()
    one, two = Guest(), Guest()
    one.note(parsed(p.data(b"x")), 10, 20, 30)
    one.placed, one.seq_offset, one.ts_offset, one.fin, one.reset = True, 1, 2, 3, True
    one.syn = parsed(p.syn())
    two.become(one)
    assert two.syn is None
    fields = [name for name in dir(one) if not name.startswith("_") and not callable(getattr(one, name))]
    assert len(fields) > 8
    assert all(getattr(one, name) == getattr(two, name) for name in fields if name != "syn")
    assert (two.end, two.ack, two.window, two.seq_offset, two.ts_offset, two.fin) == (10, 20, 30, 1, 2, 3)


# Keys


@pytest.mark.parametrize("key", [b"twelve bytes", b"any other number of them"])
def test_a_flow_knows_its_key(key: bytes) -> None:
    flow = TcpFlow(key, 0.0, 0)
    assert flow.key == key
    assert (flow.ports < 0, flow.long_key == key) == (len(key) != 12, len(key) != 12)


# Places


def test_places_are_in_the_clients_space(flow: TcpFlow) -> None:
    _, p, s = ends()
    flow.secondary.seq_offset = 1000 - 5000
    ours, theirs = parsed(p.data(b"x", at=7)), parsed(s.data(b"x", at=7))
    assert flow.place(flow.primary, ours) == 1007
    flow.stream.matched = (1 << 32) + 1000
    assert flow.place(flow.primary, ours) == flow.place(flow.secondary, theirs) == (1 << 32) + 1007


def test_an_acknowledgement_beyond_what_was_heard_moves_the_client(flow: TcpFlow) -> None:
    _, p, _ = ends()
    assert flow.ack_of(parsed(p.ack(50))) == 150
    assert flow.client_end == 150
    assert flow.ack_of(parsed(p.ack(40))) == 140
    assert flow.ack_of(parsed(p.syn())) == NOWHERE
    assert flow.client_end == 150


def test_windows_are_scaled_but_in_a_syn(flow: TcpFlow) -> None:
    _, p, _ = ends()
    assert flow.scaled(parsed(p.ack(1, window=10))) == 10
    flow.shift = 3
    assert flow.scaled(parsed(p.ack(1, window=10))) == 80
    assert flow.scaled(parsed(p.syn_ack(ack=1, window=10))) == 10


def test_guessing_where_a_stream_stands(flow: TcpFlow) -> None:
    flow.guessed = True
    flow.guess(1000)
    assert (flow.stream.matched, flow.base, flow.guessed) == (1000, 1000, True)
    flow.guess(1500)
    assert flow.base == 1000
    flow.client_ack = 800
    flow.guess(900)
    assert (flow.stream.matched, flow.base) == (900, 900)
    flow.client_ack = 900
    flow.guess(950)
    assert not flow.guessed


# SYNs


def test_a_syn_is_a_repetition_by_its_number(flow: TcpFlow) -> None:
    _, p, s = ends()
    syn, other = parsed(p.syn()), parsed(s.syn())
    assert not flow.is_repetition(flow.primary, syn)
    flow.primary.syn = syn
    assert flow.is_repetition(flow.primary, parsed(p.syn()))
    assert not flow.is_repetition(flow.primary, other)
    assert not flow.is_repetition(flow.secondary, other)
    flow.primary.syn = None
    flow.isn = 1000
    flow.stream.matched = 1001
    flow.primary.placed = flow.secondary.placed = True
    flow.secondary.seq_offset = 1000 - 5000
    assert flow.is_repetition(flow.primary, syn)
    assert flow.is_repetition(flow.secondary, other)
    assert not flow.is_repetition(flow.primary, other)


def test_which_syn_begins_the_next_connection(flow: TcpFlow) -> None:
    c, p, _ = ends()
    flow.isn = 1000
    flow.stream.matched = 1001
    assert flow.begins_anew(parsed(p.segment(SYN, at=99)))
    flow.primary.placed = True
    flow.primary.end = 2000
    assert flow.begins_anew(parsed(p.segment(SYN, at=5000)))
    assert not flow.begins_anew(parsed(p.segment(SYN, at=500)))
    flow.client_end = 150
    assert not flow.begins_anew(parsed(p.segment(SYN | ACK, at=5000, ack=1)))
    flow.client_syn = parsed(c.syn(), True)
    assert flow.begins_anew(parsed(p.segment(SYN | ACK, at=5000, ack=1)))
    assert not flow.begins_anew(parsed(p.segment(SYN | ACK, at=5000, ack=77)))
    flow.client_syn = None
    flow.state = CLOSED
    assert flow.begins_anew(parsed(p.segment(SYN | ACK, at=500, ack=1)))


# Commits


def test_catching_up_makes_the_guests_equal(flow: TcpFlow) -> None:
    _, p, s = ends()
    flow.primary.placed = True
    flow.primary.end = 1010
    flow.primary.syn = parsed(p.syn())
    flow.secondary.seq_offset = 77
    flow.blocked = flow.guessed = True
    flow.stream.matched = 1000
    flow.loose = [parsed(s.fin())]
    flow.ack_frame = parsed(s.ack())
    flow.catch_up(5)
    assert (flow.generation, flow.secondary.seq_offset, flow.stream.matched) == (5, 0, 1010)
    assert not flow.blocked
    assert not flow.guessed
    assert (flow.drop_secondary_output(), flow.is_repetition(flow.primary, parsed(p.syn()))) == (0, False)


def test_catching_up_with_a_primary_that_has_said_nothing(flow: TcpFlow) -> None:
    flow.catch_up(1)
    assert (flow.stream.matched, flow.secondary.placed, flow.guessed) == (NOWHERE, False, False)


def test_realigning_keeps_the_offsets(flow: TcpFlow) -> None:
    flow.blocked = True
    flow.realign()
    assert (flow.blocked, flow.stream.matched) == (False, NOWHERE)
    flow.primary.placed, flow.primary.end = True, 1010
    flow.secondary.seq_offset = 77
    flow.realign()
    assert (flow.stream.matched, flow.secondary.seq_offset) == (1010, 77)


# What only the secondary said


def test_output_of_the_secondary_in_stream_order(flow: TcpFlow) -> None:
    _, _, s = ends()
    assert flow.unmatched_output() == []
    data, fin = parsed(s.data(b"abc", ack=5)), parsed(s.fin(ack=5))
    flow.stream.matched = 1001
    flow.stream.offer(False, 1001, data.data, data.payload, data.end, data, 0.0)
    flow.loose = [data, fin]
    assert flow.unmatched_output() == [data, fin]
    flow.ack_frame = parsed(s.ack(5))
    assert flow.unmatched_output() == [data, fin]
    flow.ack_frame = later = parsed(s.ack(9))
    assert flow.unmatched_output() == [data, fin, later]
    assert flow.drop_secondary_output() == 3
    assert flow.drop_secondary_output() == 0


# Promotion


def test_a_promoted_guest_keeps_its_offsets(flow: TcpFlow) -> None:
    flow.secondary.placed = True
    flow.secondary.seq_offset, flow.secondary.end = 77, 1020
    flow.primary.placed, flow.released_end = True, 1010
    flow.enqueue(held(flow), False)
    flow.enqueue(held(flow), True)
    flow.promote()
    assert (flow.primary.seq_offset, flow.rewritten(), flow.cut) == (77, True, False)
    assert (flow.holds_nothing(), flow.stream.matched, flow.monotonic) == (True, 1020, True)


def test_a_guest_whose_syn_nobody_answered_for_is_the_first(flow: TcpFlow) -> None:
    _, _, s = ends()
    flow.secondary.syn = parsed(s.syn_ack(ack=1))
    flow.isn = 1000
    flow.promote()
    assert (flow.isn, flow.primary.placed, flow.primary.syn, flow.cut) == (NOWHERE, False, None, False)


def test_a_guest_of_unknown_numbers_cannot_go_on(flow: TcpFlow) -> None:
    flow.primary.placed, flow.released_end = True, 1010
    flow.promote()
    assert flow.cut


def test_what_may_be_forgotten(flow: TcpFlow) -> None:
    assert flow.forgettable()
    flow.primary.ts_offset = 1
    assert not flow.forgettable()
    flow.primary.ts_offset = 0
    flow.secondary.seq_offset = 1
    assert not flow.forgettable()
    flow.secondary.seq_offset = 0
    flow.enqueue(held(flow), True)
    assert not flow.forgettable()


# What waits


def test_two_queues(flow: TcpFlow) -> None:
    one, two, ack, ack2 = held(flow), held(flow), held(flow), held(flow)
    for entry, lone in ((one, False), (ack, True), (two, False), (ack2, True)):
        flow.enqueue(entry, lone)
    assert (flow.first_in_queue(), flow.first_ack()) == (one, ack)
    flow.take_first(ack)
    assert flow.monotonic
    flow.take_first(one)
    assert (flow.first_in_queue(), flow.first_ack()) == (two, ack2)
    flow.take_first(two)
    assert (flow.queue, flow.holds_nothing()) == (None, False)
    flow.take_first(ack2)
    assert flow.holds_nothing()


def test_what_has_gone_otherwise_is_passed_over(flow: TcpFlow) -> None:
    one, two, ack = held(flow), held(flow), held(flow)
    for entry, lone in ((one, False), (two, False), (ack, True)):
        flow.enqueue(entry, lone)
    one.done = True
    assert flow.first_in_queue() is two
    two.done = ack.done = True
    assert flow.first_in_queue() is None
    assert flow.first_ack() is None
    assert flow.holds_nothing()
    assert flow.first_in_queue() is None


def test_taking_all(flow: TcpFlow) -> None:
    one, gone, ack = held(flow), held(flow), held(flow)
    for entry, lone in ((one, False), (gone, False), (ack, True)):
        flow.enqueue(entry, lone)
    gone.done = True
    assert flow.take_held() == [one, ack]
    assert flow.take_held() == []
    assert one.next is None  # a long chain must not be freed from its head


def test_a_segment_of_the_client_knows_its_place() -> None:
    frame = Frame(b"", 0)
    segment = ClientSegment(100, 107, frame)
    assert (segment.start, segment.end, segment.frame) == (100, 107, frame)


def test_spelling_out_what_is_early(flow: TcpFlow) -> None:
    flow.stream.skip_to(100)
    for end, payload in ((102, b"ab"), (105, b"cde")):
        frame = Frame(b"--" + payload, 0)
        frame.payload, frame.end = 2, 2 + len(payload)
        entry = held(flow, frame)
        entry.end = end
        flow.early = flow.early or entry
        flow.enqueue(entry, False)
    flow.spell_out()
    assert flow.stream.primary is not None
    assert [(s.start, s.end) for s in flow.stream.primary.segments()] == [(100, 102), (102, 105)]
    assert flow.early is None
    flow.spell_out()
    assert flow.stream.primary.bytes == 5


def test_a_guess_on_the_other_side_of_the_wrap_than_the_clients_acknowledgement(flow: TcpFlow) -> None:
    """The first frame of the guest was lost on its way here, and what is heard begins behind 2^32."""
    flow.guessed = True
    flow.client_ack = (1 << 32) - 304
    flow.guess(986)
    assert flow.client_ack == -304
    flow.guess(986)
    assert flow.guessed
    flow.guess(-304)
    assert (flow.base, flow.stream.matched) == (-304, -304)
    flow.guess(986)
    assert not flow.guessed


def test_what_few_flows_have_is_made_for_them() -> None:
    frame = Frame(b"", 0)
    clamp = Clamp(frame, 5, 6)
    assert (clamp.frame, clamp.ack, clamp.window) == (frame, 5, 6)
    kept = InFlight()
    assert (len(kept.segments), kept.bytes, kept.retry_at, kept.retries) == (0, 0, 0.0, 0)
