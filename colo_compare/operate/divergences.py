"""What is remembered of each divergence, so that a person can have it explained.

Bounded in every direction: so many records, so many bytes of each frame, so many patterns, and so many looks
at contents in a second. What was said stays in memory, and is given to whoever may use the control socket;
the log never has it.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from colo_compare.core.actions import (
    CheckpointAborted,
    CheckpointCommitted,
    Divergence,
    Event,
    Evidence,
    ModeChanged,
)
from colo_compare.operate.causes import UNEXAMINED, Cause, find_cause
from colo_compare.wire.frame import OPAQUE, parse_frame

KEPT: Final = 256  # records
KEPT_PATTERNS: Final = 256
PATTERN_IDS: Final = 8  # of its last divergences
FRAME_BYTES: Final = 1024  # from the beginning of a frame
BEFORE: Final = 64  # bytes of context
AFTER: Final = 192
LOOKS: Final = 100  # causes found in a second: at about 50 us each, half a per cent of it

_EXCESS: Final = Cause(UNEXAMINED, "too many divergences at once to look at each")


class Said(msgspec.Struct):
    """What one side said."""

    frame: bytes  # the beginning of the Ethernet frame; b"" where the side said nothing
    frame_length: int  # of all of it
    at: int  # index of the first byte that differs in the whole frame
    context: bytes  # the payload round that byte
    before: int  # index of that byte in `context`
    time: float | None  # Unix time of its arrival, if known


class Pattern(msgspec.Struct):
    """Divergences that look the same."""

    reason: str
    cause: str
    field: str
    service: str  # the guest's end of the flows
    count: int
    first: float  # Unix time
    last: float
    ids: list[int]  # of the last ones, newest last


class Record(msgspec.Struct):
    """One divergence."""

    id: int
    time: float  # Unix time
    epoch: int
    flow: str
    reason: str
    offset: int
    cause: Cause
    primary: Said
    secondary: Said
    pattern: Pattern
    checkpoint: dict[str, Any] | None = None  # the one that followed


class Divergences:
    """The last divergences of one loop, and their patterns."""

    def __init__(self, unix_time: Callable[[], float] = time.time) -> None:
        self._unix_time = unix_time
        self._records: deque[Record] = deque(maxlen=KEPT)
        self._unanswered: deque[Record] = deque(maxlen=KEPT)  # no checkpoint has followed them yet
        self._patterns: OrderedDict[tuple[str, ...], Pattern] = OrderedDict()
        self._looks = 0
        self._second = 0.0

    def note(self, event: Event, primary_header: int = 0, secondary_header: int = 0) -> None:
        """Take what the core has to tell. The headers: bytes before the Ethernet frame on the two ports."""
        if isinstance(event, Divergence):
            self._add(event, primary_header, secondary_header)
        elif isinstance(event, CheckpointCommitted):
            self._answer(
                event,
                {
                    "epoch": event.epoch,
                    "outcome": "committed",
                    "reasons": list(event.reasons),
                    "request_to_commit": event.request_to_commit,
                },
            )
        elif isinstance(event, CheckpointAborted):
            for record in self._unanswered:
                record.checkpoint = {"epoch": event.epoch, "outcome": "aborted", "detail": event.detail}
        elif isinstance(event, ModeChanged):
            self._unanswered.clear()

    def _add(self, event: Divergence, primary_header: int, secondary_header: int) -> None:
        now = self._unix_time()
        primary = _said(event.ours, primary_header, event, now)
        secondary = _said(event.theirs, secondary_header, event, now)
        cause = self._cause(event, primary, secondary, now)
        pattern = self._pattern(event, cause, now)
        record = Record(
            event.id, now, event.epoch, event.flow, event.reason, event.offset,
            cause, primary, secondary, pattern,
        )  # fmt: skip
        self._records.append(record)
        self._unanswered.append(record)

    def _answer(self, event: CheckpointCommitted, checkpoint: dict[str, Any]) -> None:
        now = self._unix_time()
        for record in self._unanswered:
            record.checkpoint = {**checkpoint, "after": now - record.time}
        self._unanswered.clear()

    def _cause(self, event: Divergence, primary: Said, secondary: Said, now: float) -> Cause:
        if now - self._second >= 1.0:
            self._second = now
            self._looks = 0
        self._looks += 1
        if self._looks > LOOKS:
            return _EXCESS
        ours = primary.context[primary.before :] or event.primary
        theirs = secondary.context[secondary.before :] or event.secondary
        longer = primary if primary.before >= secondary.before else secondary
        before = longer.context[: longer.before]
        return find_cause(event.reason, before, ours, theirs, now, is_start=event.offset <= len(before))

    def _pattern(self, event: Divergence, cause: Cause, now: float) -> Pattern:
        service = event.flow.partition(" - ")[0]
        key = (event.reason, cause.kind, cause.field, service)
        pattern = self._patterns.get(key)
        if pattern is None:
            pattern = Pattern(event.reason, cause.kind, cause.field, service, 0, now, now, [])
            self._patterns[key] = pattern
            if len(self._patterns) > KEPT_PATTERNS:
                self._patterns.popitem(last=False)
        self._patterns.move_to_end(key)
        pattern.count += 1
        pattern.last = now
        pattern.ids = [*pattern.ids[1 - PATTERN_IDS :], event.id]
        return pattern

    # Questions

    def get(self, number: int) -> Record | None:
        """Give the record of one divergence; None where it is not known, or no more."""
        for record in reversed(self._records):
            if record.id == number:
                return record
        return None

    def cause_of(self, number: int) -> str:
        """Give the kind of cause of one divergence, "" where it is not known."""
        record = self.get(number)
        return "" if record is None else record.cause.kind

    def latest(self, count: int) -> list[Record]:
        """Give the newest records, oldest first."""
        return list(self._records)[max(len(self._records) - count, 0) :]

    def patterns(self) -> list[Pattern]:
        """Give the patterns, those that came most often first."""
        return sorted(self._patterns.values(), key=lambda pattern: (-pattern.count, -pattern.last))


def _said(evidence: Evidence, header: int, event: Divergence, now: float) -> Said:
    """Take what is needed of a frame that is not kept."""
    if not evidence.data:
        return Said(b"", 0, 0, b"", 0, None)
    frame = parse_frame(evidence.data, header, False)
    start, end = (frame.payload, frame.end) if frame.kind != OPAQUE else (header, len(evidence.data))
    low = max(evidence.at - BEFORE, start if evidence.at >= start else header)
    return Said(
        frame=evidence.data[header : header + FRAME_BYTES],
        frame_length=len(evidence.data) - header,
        at=evidence.at - header,
        context=evidence.data[low : max(min(evidence.at + AFTER, end), evidence.at)],
        before=evidence.at - low,
        time=None if evidence.seen < 0 else now - (event.at - evidence.seen),
    )


def summary(record: Record) -> dict[str, Any]:
    """Give what names a divergence, without anything of its contents."""
    return {
        "id": record.id,
        "time": record.time,
        "epoch": record.epoch,
        "flow": record.flow,
        "reason": record.reason,
        "offset": record.offset,
        "cause": record.cause.kind,
        "field": record.cause.field,
        "count": record.pattern.count,
        "checkpoint": record.checkpoint,
    }
