"""The short way: when it is taken, when it is left, and that it leads where the general one does."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_compare.build import is_compiled
from colo_compare.core.proxy import Proxy
from colo_compare.core.settings import Settings
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.core.stream import Segment
from colo_compare.core.tcp_flow import TcpFlow
from colo_compare.core.tcp_steady import Steady
from colo_compare.wire.frame import parse_frames
from tests.conversation import Clock, Conversation, Packet
from tests.frames import ACK, FIN, PSH, RST
from tests.playbook import Playbook

QUIET = Settings(mirror_retry=math.inf, announce=False)


@pytest.fixture
def play() -> Playbook:
    return Playbook(QUIET)


def flow_of(play: Playbook) -> TcpFlow:
    (flow,) = play.proxy._dispatch.tcp.table.flows.values()
    return flow


def spelled(play: Playbook) -> list[Segment]:
    primary = flow_of(play).stream.primary
    return [] if primary is None else primary.segments()


def is_early(play: Playbook) -> bool:
    return flow_of(play).early is not None


def test_the_same_segments_need_no_place_in_the_stream(play: Playbook) -> None:
    _, p, s = play.connection()
    one, two = p.data(b"one"), p.data(b"two")
    play.primary(one, two)
    assert is_early(play)
    assert spelled(play) == []
    play.secondary(s.data(b"one"), releases=[one])
    assert is_early(play)
    play.secondary(s.data(b"two"), releases=[two])
    assert not is_early(play)
    assert play.proxy.counters.compared_bytes == 6


def test_other_segments_are_spelled_out(play: Playbook) -> None:
    _, p, s = play.connection()
    one, two = p.data(b"one"), p.data(b"two")
    play.primary(one, two)
    play.secondary(s.data(b"onet"), releases=[one])
    assert [segment.start - flow_of(play).isn for segment in spelled(play)] == [5]
    three = p.data(b"three")
    play.primary(three)
    assert len(spelled(play)) == 2
    play.secondary(s.data(b"wothree"), releases=[two, three])
    four = p.data(b"four")
    play.primary(four)
    assert is_early(play)
    play.secondary(s.data(b"four"), releases=[four])


def test_what_differs_is_found(play: Playbook) -> None:
    _, p, s = play.connection()
    one, two = p.data(b"one"), p.data(b"two")
    play.primary(one, two)
    play.secondary(s.data(b"one"), releases=[one])
    play.secondary(s.data(b"twi"), requests=["payload"])
    play.primary(p.data(b"blocked"))
    assert not is_early(play)


def test_a_segment_from_another_place_is_no_repetition(play: Playbook) -> None:
    _, p, s = play.connection()
    one = p.data(b"one")
    play.primary(one)
    play.secondary(s.data(b"one", at=4))
    assert not is_early(play)
    play.secondary(s.data(b"one", at=1), releases=[one])


@pytest.mark.parametrize("flags", [FIN | ACK, RST | ACK])
def test_an_end_is_not_steady(play: Playbook, flags: int) -> None:
    _, p, s = play.connection()
    one, end = p.data(b"one"), p.segment(flags)
    play.primary(one)
    play.primary(end)
    assert not is_early(play)
    play.secondary(s.data(b"one"), releases=[one])
    play.secondary(s.segment(flags), releases=[end])


def test_a_secondary_that_ends_spells_out(play: Playbook) -> None:
    _, p, s = play.connection()
    one = p.data(b"one")
    play.primary(one)
    play.secondary(s.fin(b"on"), requests=["fin"])
    assert not is_early(play)


def test_a_hole_is_not_steady(play: Playbook) -> None:
    _, p, s = play.connection()
    play.primary(p.data(b"two", at=4))
    assert not is_early(play)
    one = p.data(b"one", at=1)
    play.primary(one)
    assert not is_early(play)
    assert len(play.held) == 2
    play.secondary(s.data(b"onetwo"), releases=play.held)


def test_where_the_secondary_is_ahead_nothing_is_held(play: Playbook) -> None:
    _, p, s = play.connection()
    play.secondary(s.data(b"one"))
    one = p.data(b"one")
    play.primary(one, releases=[one])


def test_what_the_secondary_says_in_one_goes_piece_by_piece(play: Playbook) -> None:
    _, p, s = play.connection()
    play.secondary(s.data(b"onetwo"))
    for piece in (b"one", b"two"):
        frame = p.data(piece)
        play.primary(frame, releases=[frame])
    play.secondary(s.data(b"three"))
    play.secondary(s.data(b"four"))
    for piece in (b"three", b"four"):
        frame = p.data(piece)
        play.primary(frame, releases=[frame])
    play.secondary(s.data(b"five"))
    play.primary(p.data(b"give"), requests=["payload"])


def test_what_the_secondary_has_said_may_wait_for_its_acknowledgement(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.data(b"request"))
    play.secondary(s.data(b"one", ack=1))
    one = p.data(b"one")
    play.primary(one)
    play.secondary(s.ack(), releases=[one])


def test_a_lone_acknowledgement_spells_nothing_out(play: Playbook) -> None:
    _, p, s = play.connection()
    one, ack = p.data(b"one"), p.ack()
    play.primary(one)
    play.primary(ack, releases=[ack])
    play.secondary(s.ack())
    assert is_early(play)
    play.secondary(s.data(b"one"), releases=[one])


def test_what_is_said_too_may_wait_for_an_acknowledgement() -> None:
    play = Playbook(Settings(mirror_retry=0.02, announce=False))
    c, p, s = play.connection()
    request = c.data(b"request")
    play.client(request)
    before, one, two = p.data(b"-", ack=1), p.data(b"one"), p.data(b"two")
    play.primary(before, one, two)
    play.secondary(s.data(b"-", ack=1), releases=[before])
    play.secondary(s.data(b"one", ack=1))
    assert is_early(play)
    play.after(0.021, mirrors=[request])
    play.secondary(s.data(b"two"), releases=[one, two])
    assert not is_early(play)


def test_a_lone_acknowledgement_that_waits_goes_with_it(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.data(b"request"))
    one, ack = p.data(b"one"), p.ack()
    play.primary(one, ack)
    play.secondary(s.data(b"one"), releases=[one, ack])


def test_segments_without_an_acknowledgement(play: Playbook) -> None:
    _, p, s = play.connection()
    one = p.segment(PSH, b"one")
    play.primary(one)
    assert is_early(play)
    play.secondary(s.segment(PSH, b"one"), releases=[one])


def test_nothing_is_early_after_a_checkpoint_or_a_promotion(play: Playbook) -> None:
    _, p, s = play.connection()
    one = p.data(b"one")
    play.primary(one)
    play.checkpoint(releases=[one])
    assert not is_early(play)
    s.become(p)
    two = p.data(b"two")
    play.primary(two)
    play.promote(discards=[two])
    assert not is_early(play)


def test_a_blocked_pair_holds_in_the_general_way() -> None:
    play = Playbook(Settings(mirror_retry=math.inf, announce=False, on_secondary_loss="block"))
    _, p, _ = play.connection()
    play.primary(p.data(b"one"))
    play.lose_secondary(blocks=True)
    play.primary(p.data(b"two"))
    assert not is_early(play)
    assert len(play.held) == 2


def test_what_is_not_compared_is_not_held(play: Playbook) -> None:
    _, p, _ = play.connection()
    one = p.data(b"one")
    (frame,) = parse_frames([one.data], one.header_len, False)
    flow = flow_of(play)
    steady = play.proxy._dispatch.tcp.steady
    for name in ("alone", "blocked", "guessed"):
        setattr(flow, name, True)
        assert not steady.take(flow, frame)
        setattr(flow, name, False)
    play.primary(one)
    assert is_early(play)
    flow.catch_up(flow.generation)
    assert not is_early(play)


# That it leads where the general way does


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(st.sampled_from("ppppssssrqcPSfx"), st.integers(1, 3), st.integers(0, 2)), max_size=30
)
TEXT = bytes(range(1, 100))


class Life:
    """One proxy, fed with what a list of steps makes of two guests that say the same text."""

    def __init__(self) -> None:
        self.proxy = Proxy(QUIET, 0.0)
        self.talk = Conversation(Clock(0.0))
        self.said: list[object] = []
        self.now = 0.0
        self.proxy.start(0.0)
        self.proxy.paused(1, 0.0)
        self.proxy.committed(1, 0.0)
        c, p, s = self.talk.client, self.talk.primary, self.talk.secondary
        for end, packet in ((c, c.syn()), (p, p.syn_ack()), (s, s.syn_ack()), (c, c.ack(1))):
            self.feed({c: CLIENT, p: PRIMARY, s: SECONDARY}[end], packet)

    def feed(self, side: int, packet: Packet) -> None:
        self.now += 0.001
        frames = parse_frames([packet.data], packet.header_len, side == CLIENT)
        self.proxy.receive(side, frames, self.now)
        actions = self.proxy.take_actions()
        self.said.append([frame.data for frame in actions.to_client])
        self.said.append([frame.data for frame in actions.to_secondary])
        self.said.append((actions.waits, actions.requests, self.proxy.held_frames, self.proxy.held_bytes))

    def step(self, step: Step) -> None:
        what, length, back = step
        talk = self.talk
        if what == "c":
            self.feed(CLIENT, talk.client.data(b"?" * length))
            return
        guest, side = (talk.primary, PRIMARY) if what in "prPf" else (talk.secondary, SECONDARY)
        heard = talk.client.nxt - back if back < talk.client.nxt else 1
        if what in "ps":
            packet = guest.data(TEXT[guest.nxt : guest.nxt + length], ack=heard)
        elif what in "rq":
            at = max(1, guest.nxt - back)
            packet = guest.data(TEXT[at : at + length], at=at, ack=heard)
        elif what in "PS":
            packet = guest.ack(heard, window=20 * length)
        else:
            packet = guest.fin(TEXT[guest.nxt : guest.nxt + length]) if back else guest.data(b"!" * length)
        self.feed(side, packet)

    def end(self) -> list[object]:
        return [*self.said, self.proxy.counters.snapshot()]


@pytest.mark.skipif(is_compiled(), reason="compiled classes cannot be changed: the plain ones stand for both")
@given(STEPS)
def test_the_general_way_comes_to_the_same(steps: list[Step]) -> None:
    ends: list[list[object]] = []
    for short in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not short:
                patch.setattr(Steady, "take", lambda *_: False)
                patch.setattr(Steady, "match", lambda *_: False)
            life = Life()
            for step in steps:
                life.step(step)
            ends.append(life.end())
    assert ends[0] == ends[1]
