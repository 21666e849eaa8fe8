"""A capture file for each divergence: the last frames of all sides before it, and those shortly after.

Bounded in files and bytes: the oldest go. A disk that is full, or a directory that cannot be written, costs
the captures and nothing else: it is counted, and logged once until it is well again.
"""

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from colo_compare import __version__
from colo_compare.core.actions import Divergence
from colo_compare.operate.frames import OUTCOMES, Batch, CaptureText, Comments, FrameWatch

logger: Final = logging.getLogger(__name__)

_PATTERN: Final = "divergence-*.pcapng"
_MOST_NAMED: Final = 20  # divergences in one file's comment


@dataclass(frozen=True)
class CaptureSettings:
    """What `[capture]` says. Durations are seconds, sizes bytes."""

    directory: Path
    ring: int  # of frames in memory, and at most about so much in a file
    after: float  # how long to go on after a divergence
    interval: float  # between two files
    max_files: int
    max_bytes: int  # of all files


class Captures:
    """Writes a file for each divergence, or for several that came together."""

    def __init__(self, settings: CaptureSettings, unix_time: Callable[[], float] = time.time) -> None:
        self.settings: Final = settings
        self._unix_time = unix_time
        self._wanted: list[Divergence] = []
        self._news = trio.Event()
        self._not_before = 0.0  # of trio's time
        # Skipped: divergences without a file, as one had been written just before.
        self.outcomes: Final = dict.fromkeys(OUTCOMES, 0)
        self.failure = ""  # why the last one could not be written

    def want(self, event: Divergence) -> None:
        """Ask for a file about a divergence."""
        if not self._wanted and trio.current_time() < self._not_before:
            self.outcomes["skipped"] += 1
        elif len(self._wanted) < _MOST_NAMED:
            self._wanted.append(event)
            self._news.set()

    async def run(self, watch: FrameWatch) -> None:
        """Keep frames, and write files, until cancelled."""
        watch.wanted = self.want
        watch.captures = self.outcomes
        ring = watch.begin(self.settings.ring)
        try:
            while True:
                await self._news.wait()
                await trio.sleep(self.settings.after)
                wanted, self._wanted = self._wanted, []
                self._news = trio.Event()
                self._not_before = trio.current_time() + self.settings.interval
                await self._write(wanted, ring.since(0), ring.comments(0))
        finally:
            watch.wanted = None
            watch.end(self.settings.ring)

    async def _write(self, wanted: list[Divergence], batches: list[Batch], comments: Comments) -> None:
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._unix_time()))
        path = self.settings.directory / f"divergence-{moment}-{wanted[0].id}.pcapng"
        about = ", ".join(str(event.id) for event in wanted)
        text = f"colo-compare {__version__}: divergence {about}"
        try:
            await trio.to_thread.run_sync(write_capture, path, text, batches, comments)
            await trio.to_thread.run_sync(make_room, self.settings)
        except OSError as error:
            self.outcomes["failed"] += 1
            failure = f"{path.parent}: {error.strerror}"
            if failure != self.failure:
                logger.warning(
                    "a capture was not written, and nothing else is affected: %s; "
                    "make room, or let this user write there",
                    failure,
                )
            self.failure = failure
        else:
            self.outcomes["written"] += 1
            self.failure = ""
            logger.info("captured: %s", path)

    def figures(self) -> dict[str, Any]:
        """Give the counters and the last failure, for `status`."""
        return {
            "directory": str(self.settings.directory),
            **self.outcomes,
            "failure": self.failure,
        }


def write_capture(path: Path, about: str, batches: list[Batch], comments: Comments) -> None:
    """Write one file, whole or not at all, for its owner only. Raises OSError."""
    text = CaptureText()
    unfinished = path.with_name(f".{path.name}")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(text.header(about))
            for batch in batches:
                file.write(text.batches([batch], comments))
        unfinished.rename(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise


def make_room(settings: CaptureSettings) -> None:
    """Remove the oldest files beyond the limits. Raises OSError."""
    # By name, which begins with the time: a file that somebody copied here keeps its age.
    files = [(path, path.stat().st_size) for path in sorted(settings.directory.glob(_PATTERN))]
    size = sum(length for _, length in files)
    while len(files) > settings.max_files or (size > settings.max_bytes and len(files) > 1):
        path, length = files.pop(0)
        path.unlink(missing_ok=True)
        size -= length
