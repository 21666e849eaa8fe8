import struct
from dataclasses import replace

import pytest

from colo_compare.core.actions import (
    NOTHING,
    CheckpointAborted,
    CheckpointCommitted,
    Divergence,
    Evidence,
    ModeChanged,
)
from colo_compare.operate import causes, divergences
from colo_compare.operate.divergences import AFTER, BEFORE, FRAME_BYTES, Divergences, Record, summary
from tests.conversation import Clock, Conversation

FLOW = "udp 10.0.0.2:80 - 10.0.0.1:40000"


class Case:
    """Divergences under a clock of the test's own. The core's clock shows 1000 s less."""

    def __init__(self) -> None:
        self.now = 2000.0
        self.kept = Divergences(lambda: self.now)
        self.talk = Conversation(Clock(0.0))
        self.number = 0

    def diverge(self, ours: bytes, theirs: bytes, header: int = 0, reason: str = "payload") -> Record:
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), 0)
        self.number += 1
        self.kept.note(
            Divergence(
                self.now - 1000.0, self.number, 3, FLOW, reason, at, ours[at:][:64], theirs[at:][:64],
                self._evidence(ours, at, header, 0.25), self._evidence(theirs, at, header, 0.125),
            ),
            header,
            header,
        )  # fmt: skip
        record = self.kept.get(self.number)
        assert record is not None
        return record

    def _evidence(self, payload: bytes, at: int, header: int, age: float) -> Evidence:
        if not payload:
            return NOTHING
        data = bytes(header) + self.talk.primary.datagram(payload).data
        return Evidence(data, data.index(payload) + at, self.now - 1000.0 - age)


@pytest.mark.parametrize("header", [0, 12])
def test_both_sides_with_their_context(header: int) -> None:
    case = Case()
    record = case.diverge(b"n=1 and the rest", b"n=2 and the rest", header)
    primary, secondary = record.primary, record.secondary
    assert (primary.context, primary.before) == (b"n=1 and the rest", 2)
    assert (secondary.context, secondary.before) == (b"n=2 and the rest", 2)
    assert primary.frame[primary.at :][: len(b"1 and")] == b"1 and"
    assert primary.frame_length == 14 + 20 + 8 + 16
    assert (primary.time, secondary.time) == (1999.75, 1999.875)
    assert (record.cause.kind, record.cause.field) == (causes.NUMBER, "n")
    assert (record.time, record.epoch, record.offset, record.flow) == (2000.0, 3, 2, FLOW)


def test_only_so_much_of_a_frame_is_kept() -> None:
    case = Case()
    record = case.diverge(b"a" * 3000 + b"1" * 3000, b"a" * 3000 + b"2" * 3000)
    primary = record.primary
    assert len(primary.frame) == FRAME_BYTES
    assert primary.frame_length == 6042
    assert (primary.context, primary.before) == (b"a" * BEFORE + b"1" * AFTER, BEFORE)


def test_a_side_that_said_nothing() -> None:
    record = Case().diverge(b"late", b"", reason="timeout")
    assert (record.secondary.frame, record.secondary.context, record.secondary.time) == (b"", b"", None)
    assert record.cause.kind == causes.ONE_SIDE


def test_what_is_no_ip_at_all() -> None:
    case = Case()
    data = bytes(12) + struct.pack(">H", 0x0800) + b"\x99what"
    case.kept.note(
        Divergence(1000.0, 1, 0, "(no flow)", "payload", 1, b"w", b"W", Evidence(data, 15, -1.0), NOTHING)
    )
    record = case.kept.get(1)
    assert record is not None
    assert record.primary.context[record.primary.before :] == b"what"
    assert record.primary.time is None


def test_what_begins_before_the_payload() -> None:
    case = Case()
    data = case.talk.primary.syn_ack().data
    event = Divergence(1000.0, 1, 0, FLOW, "handshake", 0, b"", b"", Evidence(data, 34, -1.0), NOTHING)
    case.kept.note(event)
    record = case.kept.get(1)
    assert record is not None
    assert record.primary.context == data
    assert record.cause.kind == causes.OPTIONS


def test_the_checkpoint_that_follows() -> None:
    case = Case()
    first = case.diverge(b"n=1", b"n=2")
    case.now += 0.5
    case.kept.note(CheckpointAborted(1000.5, 4, "no answer"))
    assert first.checkpoint == {"epoch": 4, "outcome": "aborted", "detail": "no answer"}
    second = case.diverge(b"n=1", b"n=2")
    case.now += 0.25
    case.kept.note(CheckpointCommitted(1000.75, 4, ("payload",), 0.25, 1, 2))
    assert first.checkpoint == {
        "epoch": 4,
        "outcome": "committed",
        "reasons": ["payload"],
        "request_to_commit": 0.25,
        "after": 0.75,
    }
    assert second.checkpoint is not None
    assert second.checkpoint["after"] == 0.25
    case.kept.note(CheckpointCommitted(1001.0, 5, ("operator",), 0.25, 1, 2))
    assert second.checkpoint["epoch"] == 4


def test_no_checkpoint_follows_where_the_pair_is_no_more() -> None:
    case = Case()
    record = case.diverge(b"n=1", b"n=2")
    case.kept.note(ModeChanged(1000.0, "protect", "solo", ""))
    case.kept.note(CheckpointCommitted(1000.75, 4, ("startup",), 0.25, 1, 2))
    assert record.checkpoint is None


def test_patterns_are_counted() -> None:
    case = Case()
    for n in range(10):
        case.now += 1.0
        case.diverge(b"n=%d" % n, b"n=%d" % (n + 1))
    other = case.diverge(b"name=anna and all", b"name=otto and all")
    numbers, names = case.kept.patterns()
    assert (numbers.count, numbers.field, numbers.cause) == (10, "n", causes.NUMBER)
    assert (numbers.first, numbers.last) == (2001.0, 2010.0)
    assert numbers.ids == list(range(3, 11))
    assert numbers.service == "udp 10.0.0.2:80"
    assert names is other.pattern
    assert summary(other)["count"] == 1
    assert not any(isinstance(value, bytes) for value in summary(other).values())


def test_everything_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergences, "KEPT_PATTERNS", 3)
    case = Case()
    for n in range(divergences.KEPT + 20):
        case.now += 1.0
        case.diverge(b"name%d=anna" % n, b"name%d=otto" % n)
    assert case.kept.get(20) is None
    assert case.kept.get(21) is not None
    assert len(case.kept.latest(1000)) == divergences.KEPT
    assert [record.id for record in case.kept.latest(2)] == [275, 276]
    assert len(case.kept.patterns()) == 3


def test_a_flood_is_not_looked_at() -> None:
    case = Case()
    kinds = [case.diverge(b"n=1", b"n=2").cause.kind for _ in range(divergences.LOOKS + 5)]
    assert kinds == [causes.NUMBER] * divergences.LOOKS + [causes.UNEXAMINED] * 5
    case.now += 1.0
    assert case.diverge(b"n=1", b"n=2").cause.kind == causes.NUMBER


def test_the_core_s_own_excerpts_will_do() -> None:
    case = Case()
    record = case.diverge(b"x", b"y")
    assert record.cause.kind == causes.CONTENT
    event = Divergence(1000.0, 50, 0, FLOW, "payload", 4, b"12:30:01 now", b"12:30:02 now")
    case.kept.note(event)
    found = case.kept.get(50)
    assert found is not None
    assert found.cause.kind == causes.TIMESTAMP
    case.kept.note(replace(event, id=51, secondary=b""))
    assert case.kept.latest(1)[0].cause.kind == causes.ONE_SIDE
