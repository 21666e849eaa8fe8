"""Comparing two byte streams by position, whatever the segments that brought them.

Both guests' payload is placed in the client's sequence space, at unwrapped positions. `matched` is the
position up to which both have said the same; behind it each side may have said more than the other, with
holes. Bytes below `matched` are retransmissions of what was compared before and are not looked at again
(a keep-alive probe repeats one of them with arbitrary contents, RFC 9293, section 3.8.4).
"""

from collections import deque
from typing import Final

from colo_compare.core.actions import NOTHING, Evidence
from colo_compare.wire.frame import Frame

NOWHERE: Final = -(1 << 60)  # a position that no stream reaches


class Segment:
    """Bytes [start, end) of one stream, found at data[at:]."""

    start: int
    end: int
    data: bytes
    at: int
    frame: "Frame | None"  # the secondary's frame that brought it, to be sent on after a promotion
    seen: float

    def __init__(
        self, start: int, end: int, data: bytes, at: int, frame: "Frame | None", seen: float
    ) -> None:
        self.start = start
        self.end = end
        self.data = data
        self.at = at
        self.frame = frame
        self.seen = seen

    def cut(self, position: int) -> None:
        """Drop the bytes below a position within it."""
        self.at += position - self.start
        self.start = position


class Ahead:
    """What one side has said beyond `matched`: disjoint segments in stream order."""

    def __init__(self) -> None:
        self.segments: deque[Segment] = deque()
        self.bytes = 0
        self.contradiction = NOWHERE  # where it said two different things at one place

    def add(self, new: Segment) -> None:
        """Put a segment in its place; what is there already must be repeated, or it is a contradiction."""
        segments = self.segments
        if not segments or new.start >= segments[-1].end:
            segments.append(new)
            self.bytes += new.end - new.start
            return
        if new.end <= segments[0].start:
            segments.appendleft(new)
            self.bytes += new.end - new.start
            return
        self._weave(new)

    def _weave(self, new: Segment) -> None:
        woven: deque[Segment] = deque()
        position = new.start
        for old in self.segments:
            if position < new.end and position < old.start:
                gap_end = old.start if old.start < new.end else new.end
                piece = Segment(
                    position, gap_end, new.data, new.at + position - new.start, new.frame, new.seen
                )
                woven.append(piece)
                self.bytes += gap_end - position
                position = gap_end
            start = old.start if old.start > new.start else new.start
            end = old.end if old.end < new.end else new.end
            if start < end:
                self._check_repetition(old, new, start, end)
                position = end
            woven.append(old)
        if position < new.end:
            woven.append(
                Segment(position, new.end, new.data, new.at + position - new.start, new.frame, new.seen)
            )
            self.bytes += new.end - position
        self.segments = woven

    def _check_repetition(self, old: Segment, new: Segment, start: int, end: int) -> None:
        length = end - start
        i = old.at + start - old.start
        j = new.at + start - new.start
        if old.data[i : i + length] != new.data[j : j + length] and self.contradiction == NOWHERE:
            self.contradiction = start

    def trim(self, matched: int) -> None:
        """Drop everything below `matched`."""
        segments = self.segments
        while segments and segments[0].start < matched:
            first = segments[0]
            if first.end <= matched:
                segments.popleft()
                self.bytes -= first.end - first.start
            else:
                self.bytes -= matched - first.start
                first.cut(matched)

    def covers(self, start: int, end: int) -> bool:
        """Whether all of [start, end) has been said."""
        for segment in self.segments:
            if segment.start > start:
                return False
            if segment.end > start:
                start = segment.end
            if start >= end:
                return True
        return False

    def frames(self) -> list[Frame]:
        """Give the frames behind the segments, each once, in stream order."""
        found: dict[int, Frame] = {}
        for segment in self.segments:
            if segment.frame is not None:
                found[id(segment.frame)] = segment.frame
        return list(found.values())


class StreamComparer:
    """Two streams, and how far they agree."""

    def __init__(self, start: int) -> None:
        self.matched = start
        self.primary: Ahead | None = None  # None while it is not ahead: most flows are idle
        self.secondary: Ahead | None = None
        self.mismatch = NOWHERE  # where they disagree
        self.island_start = NOWHERE  # what was matched before `start_again` went below it
        self.island_end = NOWHERE

    def offer(self, from_primary: bool, start: int, data: bytes, at: int, end_at: int, frame: "Frame | None",
              seen: float) -> int:  # fmt: skip
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
            if other is not None and start == self.matched and self.mismatch == NOWHERE:
                # The usual case: the other side was here first. Compare in place, keep only what is left.
                start, at = self._consume(other, start, end, data, at)
            if start < end:
                own = Ahead()
                own.add(Segment(start, end, data, at, frame, seen))
                if from_primary:
                    self.primary = own
                else:
                    self.secondary = own
        else:
            own.add(Segment(start, end, data, at, frame, seen))
            if self.mismatch == NOWHERE:
                self.mismatch = own.contradiction
                self._advance()
        self._drop_empty()
        if self.island_end != NOWHERE and self.matched >= self.island_start:
            self.skip_to(self.island_end)
        if self.primary is not None and self.secondary is not None and self.mismatch == NOWHERE:
            self._compare_beyond(self.primary, self.secondary)
        return self.matched - before

    def _consume(self, other: Ahead, start: int, end: int, data: bytes, at: int) -> tuple[int, int]:
        segments = other.segments
        while segments and start < end and segments[0].start == start:
            first = segments[0]
            length = (first.end if first.end < end else end) - start
            if first.data[first.at : first.at + length] != data[at : at + length]:
                self._mark(self.matched, first.data, first.at, data, at)
                break
            start += length
            at += length
            self.matched = start
            other.bytes -= length
            if first.end == start:
                segments.popleft()
            else:
                first.cut(start)
        return start, at

    def _advance(self) -> None:
        primary = self.primary
        secondary = self.secondary
        if primary is None or secondary is None:
            return
        while primary.segments and self.mismatch == NOWHERE:
            first = primary.segments[0]
            if first.start != self.matched:
                break
            start, _ = self._consume(secondary, first.start, first.end, first.data, first.at)
            if start == first.start:
                break
            primary.trim(self.matched)

    def _compare_beyond(self, primary: Ahead, secondary: Ahead) -> None:
        """Compare what the primary said behind a hole with what the secondary said without one."""
        reach = self.matched
        for theirs in secondary.segments:
            if theirs.start > reach:
                return
            reach = theirs.end
            for ours in primary.segments:
                low = max(ours.start, theirs.start)
                length = min(ours.end, theirs.end) - low
                if length > 0:
                    i = ours.at + low - ours.start
                    j = theirs.at + low - theirs.start
                    if ours.data[i : i + length] != theirs.data[j : j + length]:
                        self._mark(low, ours.data, i, theirs.data, j)
                        return

    def agrees(self, end: int) -> bool:
        """Whether the secondary has said everything below a position, and nothing known of it differs.

        It may have while `matched` lies below: a primary frame that was lost on its way here leaves a hole,
        and to hold what follows it would keep the client from seeing that, and from asking for it.
        """
        if end <= self.matched:
            return True
        if self.secondary is None or self.mismatch != NOWHERE:
            return False
        return self.secondary.covers(self.matched, end)

    def _mark(self, position: int, a: bytes, i: int, b: bytes, j: int) -> None:
        """Note where two pieces that begin at `position` differ. They do."""
        while a[i] == b[j]:
            i += 1
            j += 1
            position += 1
        self.mismatch = position

    def _drop_empty(self) -> None:
        if self.primary is not None and not self.primary.segments:
            self.primary = None
        if self.secondary is not None and not self.secondary.segments:
            self.secondary = None

    def at_frontier(self, from_primary: bool) -> bool:
        """Say whether this side has said a byte right at `matched`."""
        own = self.primary if from_primary else self.secondary
        return own is not None and own.segments[0].start == self.matched

    def excerpt(self, from_primary: bool, length: int = 64) -> bytes:
        """Give what one side said from `mismatch` (else `matched`) on, as far as it is known."""
        own = self.primary if from_primary else self.secondary
        position = self.matched if self.mismatch == NOWHERE else self.mismatch
        found = b""
        if own is not None:
            for segment in own.segments:
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
            for segment in own.segments:
                if segment.start <= position < segment.end:
                    return Evidence(segment.data, segment.at + position - segment.start, segment.seen)
        return NOTHING

    def start_again(self, position: int, start: int) -> None:
        """Compare from a lower position on. What was matched from `start` on stays so."""
        if self.matched > start and self.island_end == NOWHERE:
            self.island_start = start
            self.island_end = self.matched
        self.matched = position

    def skip_to(self, position: int) -> None:
        """Take everything below a position as matched, without comparing it, and forget a mismatch."""
        if position > self.matched:
            self.matched = position
        if self.matched >= self.island_start:
            self.matched = max(self.matched, self.island_end)
            self.island_start = self.island_end = NOWHERE
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
