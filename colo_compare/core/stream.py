"""Comparing two byte streams by position, whatever the segments that brought them.

Both guests' payload is placed in the client's sequence space, at unwrapped positions. `matched` is the
position up to which both have said the same; behind it each side may have said more than the other, with
holes. Bytes below `matched` are retransmissions of what was compared before and are not looked at again
(a keep-alive probe repeats one of them with arbitrary contents, RFC 9293, section 3.8.4).
"""

from typing import Final

from librt.strings import read_i64_be
from mypy_extensions import i64, mypyc_attr

from colo_compare.core.actions import NOTHING, Evidence
from colo_compare.wire.frame import Frame

NOWHERE: Final = -(1 << 60)  # a position that no stream reaches
_SHORT: Final = 128  # bytes up to which to compare eight at a time takes less than to copy them for memcmp
_LONG: Final = 8192  # bytes from which to make a memoryview costs less than to copy them


def same_bytes(a: bytes, i: i64, b: bytes, j: i64, length: i64) -> bool:
    """Whether a[i:] and b[j:] begin with the same `length` bytes, which both have."""
    if 8 <= length <= _SHORT:
        last_i = i + length - 8
        last_j = j + length - 8
        while i < last_i:
            if read_i64_be(a, i) != read_i64_be(b, j):
                return False
            i += 8
            j += 8
        return read_i64_be(a, last_i) == read_i64_be(b, last_j)  # the last eight, some of them a second time
    if length >= _LONG:
        return a.startswith(memoryview(b)[j : j + length], i)  # no copy: 64 KiB take 1.4 us instead of 2.7
    if i + length == len(a):
        return a.endswith(b[j : j + length])  # one copy, and not two: 20 ns less of 64 bytes, 60 of 1,448
    return a[i : i + length] == b[j : j + length]


class Segment:
    """Bytes [start, end) of one stream, found at data[at:]."""

    start: i64
    end: i64
    data: bytes
    at: i64
    frame: "Frame | None"  # the secondary's frame that brought it, to be sent on after a promotion
    seen: float
    next: "Segment | None"  # the one behind it in the stream

    def __init__(
        self, start: i64, end: i64, data: bytes, at: i64, frame: "Frame | None", seen: float
    ) -> None:
        self.start = start
        self.end = end
        self.data = data
        self.at = at
        self.frame = frame
        self.seen = seen
        self.next = None

    def cut(self, position: i64) -> None:
        """Drop the bytes below a position within it."""
        self.at += position - self.start
        self.start = position

    def piece(self, start: i64, end: i64) -> "Segment":
        """Give a part of it."""
        return Segment(start, end, self.data, self.at + start - self.start, self.frame, self.seen)


@mypyc_attr(acyclic=True)
class Ahead:
    """What one side has said beyond `matched`: disjoint segments in stream order.

    Each leads to the next. (Nearly always one is put at the end or taken from the front; a deque, whose
    methods are called by name also when compiled, cost 80 ns more for each frame.)
    """

    first: "Segment | None"
    last: "Segment | None"
    last_run: i64  # where the run without a hole begins that `last` ends; may lie below what is trimmed
    bytes: i64
    contradiction: i64  # where it said two different things at one place

    def __init__(self) -> None:
        self.first = None
        self.last = None
        self.last_run = NOWHERE
        self.bytes = 0
        self.contradiction = NOWHERE

    def segments(self) -> list[Segment]:
        """Give all segments, in stream order."""
        found: list[Segment] = []
        segment = self.first
        while segment is not None:
            found.append(segment)
            segment = segment.next
        return found

    def add(self, new: Segment) -> None:
        """Put a segment in its place; what is there already must be repeated, or it is a contradiction."""
        first = self.first
        last = self.last
        if first is None or last is None:
            self.first = self.last = new
            self.last_run = new.start
        elif new.start >= last.end:
            if new.start > last.end:
                self.last_run = new.start
            last.next = new
            self.last = new
        elif new.end <= first.start:
            new.next = first
            self.first = new
            if new.end == first.start == self.last_run:
                self.last_run = new.start
        else:
            self._weave(new)
            return
        self.bytes += new.end - new.start

    def _weave(self, new: Segment) -> None:
        woven: list[Segment] = []
        position = new.start
        for old in self.segments():
            if position < new.end and position < old.start:
                gap_end = old.start if old.start < new.end else new.end
                woven.append(new.piece(position, gap_end))
                self.bytes += gap_end - position
                position = gap_end
            start = old.start if old.start > new.start else new.start
            end = old.end if old.end < new.end else new.end
            if start < end:
                self._check_repetition(old, new, start, end)
                position = end
            woven.append(old)
        if position < new.end:
            woven.append(new.piece(position, new.end))
            self.bytes += new.end - position
        self._link(woven)

    def _link(self, segments: list[Segment]) -> None:
        last = segments[0]
        self.first = last
        self.last_run = last.start
        for segment in segments:
            if segment.start > last.end:
                self.last_run = segment.start
            last.next = segment
            last = segment
        last.next = None
        self.last = last

    def _check_repetition(self, old: Segment, new: Segment, start: i64, end: i64) -> None:
        length = end - start
        i = old.at + start - old.start
        j = new.at + start - new.start
        if self.contradiction == NOWHERE and not same_bytes(old.data, i, new.data, j, length):
            self.contradiction = start

    def drop_first(self, first: Segment) -> None:
        """Take out the first segment."""
        self.bytes -= first.end - first.start
        self.first = first.next
        if first.next is None:
            self.last = None
        first.next = None

    def trim(self, matched: i64) -> None:
        """Drop everything below `matched`."""
        first = self.first
        while first is not None and first.start < matched:
            if first.end <= matched:
                self.drop_first(first)
                first = self.first
            else:
                self.bytes -= matched - first.start
                first.cut(matched)

    def covers(self, start: i64, end: i64) -> bool:
        """Whether all of [start, end) has been said."""
        segment = self.first
        while segment is not None and segment.start <= start:
            if segment.end > start:
                start = segment.end
            if start >= end:
                return True
            segment = segment.next
        return False

    def frames(self) -> list[Frame]:
        """Give the frames behind the segments, each once, in stream order."""
        found: dict[int, Frame] = {}
        for segment in self.segments():
            if segment.frame is not None:
                found[id(segment.frame)] = segment.frame
        return list(found.values())


@mypyc_attr(acyclic=True)
class Island:
    """A part of the stream that both have said, above `matched`."""

    start: i64
    end: i64

    def __init__(self, start: i64, end: i64) -> None:
        self.start = start
        self.end = end


@mypyc_attr(acyclic=True)
class StreamComparer:
    """Two streams, and how far they agree."""

    matched: i64
    mismatch: i64  # where they disagree
    island: "Island | None"  # what was matched before `start_again` went below it

    def __init__(self, start: i64) -> None:
        self.matched = start
        self.primary: Ahead | None = None  # None while it is not ahead: most flows are idle
        self.secondary: Ahead | None = None
        self.mismatch = NOWHERE
        self.island = None

    def offer(self, from_primary: bool, start: i64, data: bytes, at: i64, end_at: i64, frame: "Frame | None",
              seen: float) -> i64:  # fmt: skip
        """Take payload data[at:end_at] at a position; give how many bytes became matched by it.

        Sets `mismatch` when the two streams differ. Nothing is matched behind a mismatch, but what is said
        there is kept: a promotion sends it on.
        """
        end = start + end_at - at
        if end <= self.matched:
            return 0
        if start < self.matched:
            at += self.matched - start
            start = self.matched
        before = self.matched
        own = self.primary if from_primary else self.secondary
        if own is None:
            other = self.secondary if from_primary else self.primary
            if other is not None and start == before and self.mismatch == NOWHERE:
                # The usual case: the other side was here first. Compare in place, keep only what is left.
                at += self._consume(other, start, end, data, at)
                start = self.matched
            if start < end:
                self._keep(from_primary, Segment(start, end, data, at, frame, seen))
        else:
            own.add(Segment(start, end, data, at, frame, seen))
            if self.mismatch == NOWHERE:
                self.mismatch = own.contradiction
                self._advance()
        self._drop_empty()
        if self.island is not None and self.matched >= self.island.start:
            self.skip_to(self.island.end)
        if self.primary is not None and self.secondary is not None and self.mismatch == NOWHERE:
            self._compare_beyond(self.primary, self.secondary)
        return self.matched - before

    def _keep(self, from_primary: bool, segment: Segment) -> None:
        own = Ahead()
        own.add(segment)
        if from_primary:
            self.primary = own
        else:
            self.secondary = own

    def _consume(self, other: Ahead, start: i64, end: i64, data: bytes, at: i64) -> i64:
        """Match data[at:], which is [start, end), with what the other side said; give the number of bytes."""
        began = at
        first = other.first
        while first is not None and start < end and first.start == start:
            length = (first.end if first.end < end else end) - start
            if not same_bytes(first.data, first.at, data, at, length):
                self._mark(start, first.data, first.at, data, at)
                break
            start += length
            at += length
            self.matched = start
            if first.end == start:
                other.drop_first(first)
                first = other.first
            else:
                other.bytes -= length
                first.cut(start)
        return at - began

    def _advance(self) -> None:
        primary = self.primary
        secondary = self.secondary
        if primary is None or secondary is None:
            return
        first = primary.first
        while first is not None and self.mismatch == NOWHERE and first.start == self.matched:
            if self._consume(secondary, first.start, first.end, first.data, first.at) == 0:
                break
            primary.trim(self.matched)
            first = primary.first

    def _compare_beyond(self, primary: Ahead, secondary: Ahead) -> None:
        """Compare what the primary said behind a hole with what the secondary said without one."""
        reach = self.matched
        for theirs in secondary.segments():
            if theirs.start > reach:
                return
            reach = theirs.end
            for ours in primary.segments():
                low = ours.start if ours.start > theirs.start else theirs.start
                length = (ours.end if ours.end < theirs.end else theirs.end) - low
                if length > 0:
                    i = ours.at + low - ours.start
                    j = theirs.at + low - theirs.start
                    if not same_bytes(ours.data, i, theirs.data, j, length):
                        self._mark(low, ours.data, i, theirs.data, j)
                        return

    def agrees(self, end: i64) -> bool:
        """Whether the secondary has said everything below a position, and nothing known of it differs.

        It may have while `matched` lies below: a primary frame that was lost on its way here leaves a hole,
        and to hold what follows it would keep the client from seeing that, and from asking for it.
        """
        if end <= self.matched:
            return True
        if self.secondary is None or self.mismatch != NOWHERE:
            return False
        return self.secondary.covers(self.matched, end)

    def _mark(self, position: i64, a: bytes, i: i64, b: bytes, j: i64) -> None:
        """Note where two pieces that begin at `position` differ. They do."""
        while a[i] == b[j]:
            i += 1
            j += 1
            position += 1
        self.mismatch = position

    def _drop_empty(self) -> None:
        if self.primary is not None and self.primary.first is None:
            self.primary = None
        if self.secondary is not None and self.secondary.first is None:
            self.secondary = None

    def goes_on(self, from_primary: bool) -> bool:
        """Whether this side has said a byte right at `matched`."""
        own = self.primary if from_primary else self.secondary
        return own is not None and own.first is not None and own.first.start == self.matched

    def excerpt(self, from_primary: bool, length: i64 = 64) -> bytes:
        """Give what one side said from `mismatch` (else `matched`) on, as far as it is known."""
        own = self.primary if from_primary else self.secondary
        position = self.matched if self.mismatch == NOWHERE else self.mismatch
        found = b""
        if own is not None:
            for segment in own.segments():
                if segment.start <= position < segment.end:
                    at = segment.at + position - segment.start
                    end = segment.at + segment.end - segment.start
                    found += segment.data[at : min(end, at + length - len(found))]
                    position = segment.end
        return found[:length]

    def evidence(self, from_primary: bool) -> Evidence:
        """Give the frame in which one side said the byte at which `excerpt` begins."""
        own = self.primary if from_primary else self.secondary
        position = self.matched if self.mismatch == NOWHERE else self.mismatch
        if own is not None:
            for segment in own.segments():
                if segment.start <= position < segment.end:
                    return Evidence(segment.data, segment.at + position - segment.start, segment.seen)
        return NOTHING

    def start_again(self, position: i64, start: i64) -> None:
        """Compare from a lower position on. What was matched from `start` on stays so."""
        if self.matched > start and self.island is None:
            self.island = Island(start, self.matched)
        self.matched = position

    def skip_to(self, position: i64) -> None:
        """Take everything below a position as matched, without comparing it, and forget a mismatch."""
        if position > self.matched:
            self.matched = position
        island = self.island
        if island is not None and self.matched >= island.start:
            if island.end > self.matched:
                self.matched = island.end
            self.island = None
        self.mismatch = NOWHERE
        if self.primary is not None:
            self.primary.contradiction = NOWHERE
            self.primary.trim(self.matched)
        if self.secondary is not None:
            self.secondary.contradiction = NOWHERE
            self.secondary.trim(self.matched)
        self._drop_empty()

    def forget_secondary(self) -> int:
        """Drop what the secondary said beyond `matched`; give the number of frames."""
        count = 0 if self.secondary is None else len(self.secondary.frames())
        self.secondary = None
        return count
