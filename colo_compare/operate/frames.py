"""The last frames of all three sides, kept while somebody wants to see them, and as a capture file.

Nobody looks, as a rule, and then the loop pays for one comparison with None a batch. While somebody does, a
batch costs one look at the clock and the sum of its lengths: frames are kept as they are, and turned into a
capture file only when one is wanted.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from colo_compare.core.actions import Actions, Divergence
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY, SIDE_NAMES
from colo_compare.ports.pcap import INBOUND, OUTBOUND, CaptureEncoder
from colo_compare.wire.frame import Frame

DEFAULT_BYTES: Final = 4 << 20
OVERHEAD: Final = 400  # bytes that a frame costs beside its contents: the objects round it
KEPT_MARKS: Final = 256  # divergences whose frames are marked


class Batch:
    """Frames that passed in one moment on one side."""

    def __init__(self, last: int, at: int, side: int, sent: bool, frames: Sequence[Frame], size: int) -> None:
        self.last = last  # number of its last frame, counted from 1 over all sides
        self.at = at  # nanoseconds since 1970
        self.side = side
        self.sent = sent  # by the proxy; else received
        self.frames = frames
        self.size = size


class FrameRing:
    """A bounded number of bytes of batches, the newest ones. The oldest fall out."""

    def __init__(self, limit: int, clock: Callable[[], int] = time.time_ns) -> None:
        self.now: Final = clock
        self.limit = limit  # bytes
        self._batches: deque[Batch] = deque()
        self._marks: deque[tuple[bytes, str]] = deque(maxlen=2 * KEPT_MARKS)
        self.size = 0  # bytes
        self.last = 0  # number of the newest frame
        self.fallen = 0  # number of the newest frame that is not here any more

    def note(self, side: int, sent: bool, frames: Sequence[Frame]) -> None:
        """Take frames that pass now."""
        size = OVERHEAD * len(frames)
        for frame in frames:
            size += len(frame.data)
        self.last += len(frames)
        self._batches.append(Batch(self.last, self.now(), side, sent, frames, size))
        self.size += size
        while self.size > self.limit:
            oldest = self._batches.popleft()
            self.size -= oldest.size
            self.fallen = oldest.last

    def note_sent(self, actions: Actions) -> None:
        """Take the frames that the core sends."""
        if actions.to_primary:
            self.note(PRIMARY, True, actions.to_primary)
        if actions.to_secondary:
            self.note(SECONDARY, True, actions.to_secondary)
        if actions.to_client:
            self.note(CLIENT, True, actions.to_client)

    def mark(self, event: Divergence, cause: str) -> None:
        """Note which frames diverged. They are known by identity: what the core gives back is what it got."""
        text = f"divergence {event.id} ({event.reason}, {cause}) at offset {event.offset} of {event.flow}"
        for evidence in (event.ours, event.theirs):
            if evidence.data:
                self._marks.append((evidence.data, text))

    def since(self, number: int, until: int | None = None) -> list[Batch]:
        """Give the batches after the frame with this number, those that passed up to a time (ns)."""
        found: list[Batch] = []
        for batch in reversed(self._batches):
            if batch.last <= number:
                break
            if until is None or batch.at <= until:
                found.append(batch)
        found.reverse()
        return found

    def comments(self, number: int) -> "Comments":
        """Give what is to be said of the frames after a batch."""
        return Comments(self.since(number), list(self._marks))


class Comments:
    """The verdict on each frame of a capture."""

    def __init__(self, batches: list[Batch], marks: list[tuple[bytes, str]]) -> None:
        self._marks: dict[int, str] = {}
        for data, text in marks:
            known = self._marks.get(id(data))
            self._marks[id(data)] = text if known is None else f"{known}; {text}"
        self._alive = (batches, marks)  # an identity means something only as long as its object lives
        self._released = {
            id(frame.data): batch.at
            for batch in batches
            if batch.sent and batch.side == CLIENT
            for frame in batch.frames
        }

    def of(self, batch: Batch, frame: Frame) -> str:
        """Give the comment on a frame, "" where there is nothing to say."""
        words = []
        if batch.side == PRIMARY and not batch.sent:
            released = self._released.get(id(frame.data))
            if released is not None:
                words.append(f"released after {(released - batch.at) / 1e6:.3f} ms")
            else:
                words.append("not released as it is within this capture")
        marked = self._marks.get(id(frame.data))
        if marked is not None and not batch.sent:
            words.append(marked)
        return "; ".join(words)


class CaptureText:
    """Turns batches into pcapng: an interface for each side, nanoseconds, directions and comments."""

    def __init__(self) -> None:
        self._encoder = CaptureEncoder(Path("capture.pcapng"), list(SIDE_NAMES))

    def header(self, comment: str = "") -> bytes:
        """Give what the file begins with."""
        return self._encoder.header(comment)

    def batches(self, batches: list[Batch], comments: Comments) -> bytes:
        """Give the frames, without their virtio-net headers."""
        encode = self._encoder.frame
        return b"".join(
            encode(
                SIDE_NAMES[batch.side],
                batch.at,
                frame.data[frame.header_len :],
                comments.of(batch, frame),
                OUTBOUND if batch.sent else INBOUND,
            )
            for batch in batches
            for frame in batch.frames
        )


OUTCOMES: Final = ("written", "failed", "skipped")


class FrameWatch:
    """Keeps a ring while anybody needs one, as large as the one needs who needs most."""

    def __init__(self) -> None:
        self.ring: FrameRing | None = None
        self.wanted: Callable[[Divergence], None] | None = None  # told of each divergence
        self.captures: Mapping[str, int] = dict.fromkeys(OUTCOMES, 0)  # files about divergences
        self._limits: list[int] = []  # of those who need it

    def begin(self, limit: int = DEFAULT_BYTES) -> FrameRing:
        """Give the ring, a new one if there is none. `end` with the same limit must follow."""
        self._limits.append(limit)
        if self.ring is None:
            self.ring = FrameRing(limit)
        self.ring.limit = max(self._limits)
        return self.ring

    def mark(self, event: Divergence, cause: str) -> None:
        """Note which frames diverged."""
        if self.ring is not None:
            self.ring.mark(event, cause)
        if self.wanted is not None:
            self.wanted(event)

    def end(self, limit: int = DEFAULT_BYTES) -> None:
        """Say that one who began needs it no more."""
        self._limits.remove(limit)
        if self.ring is not None:
            self.ring.limit = max(self._limits, default=0)
        if not self._limits:
            self.ring = None
