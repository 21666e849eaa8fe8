"""Frames as they pass, for one who follows them: the pieces of a pcapng file."""

import math
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Final

import trio

from colo_compare import __version__
from colo_compare.operate.frames import Batch, CaptureText, FrameWatch

# Frames are given this much later than they came, as the verdict on them is known only then.
SETTLING: Final = 0.2  # seconds
# Frames wait here for up to twice as long, so this is enough for 80 MB/s on all sides together.
ROOM: Final = 32 << 20  # bytes
PIECE: Final = 256 << 10  # bytes of frames in one piece, about


async def stream_capture(
    watch: FrameWatch, seconds: float | None, before: bool
) -> AsyncGenerator[dict[str, Any], None]:
    """Give pieces of a file, ``{"pcapng": bytes, "frames": 3, "missed": 0}``, for some seconds or for ever.

    `before`: begin with the frames that are kept already, where somebody else keeps them. `missed` are frames
    that fell out of the ring before they could be given.
    """
    ring = watch.begin(ROOM)
    try:
        text = CaptureText()
        number = ring.fallen if before else ring.last
        yield {"pcapng": text.header(f"colo-compare {__version__}"), "frames": 0, "missed": 0}
        end = math.inf if seconds is None else trio.current_time() + seconds
        while True:
            # At first without waiting: the oldest of what is kept would fall out meanwhile.
            ended = trio.current_time() >= end
            missed = max(ring.fallen - number, 0)
            batches = ring.since(number, None if ended else ring.now() - round(SETTLING * 1e9))
            comments = ring.comments(number)
            number = max(number, ring.fallen)
            for piece in _pieces(batches):
                frames = sum(len(batch.frames) for batch in piece)
                yield {"pcapng": text.batches(piece, comments), "frames": frames, "missed": missed}
                missed = 0
                number = piece[-1].last
            if missed:
                yield {"pcapng": b"", "frames": 0, "missed": missed}
            if ended:
                return
            await trio.sleep_until(min(trio.current_time() + SETTLING, end))
    finally:
        watch.end(ROOM)


def _pieces(batches: list[Batch]) -> Iterator[list[Batch]]:
    piece: list[Batch] = []
    size = 0
    for batch in batches:
        piece.append(batch)
        size += batch.size
        if size >= PIECE:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
