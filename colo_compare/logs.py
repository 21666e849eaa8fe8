"""The daemon's log: one line an event on a stream, as text or as JSON, and never in the way of a frame.

A line passes through three stations: a rate limit for each kind of line, a queue of bounded length, and a
thread that writes. The loop itself never waits for the stream: a journal that hangs, or a pipe that nobody
reads, costs log lines (counted), not frames.
"""

import json
import logging
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final, TextIO

BURST: Final = 20  # lines of one kind that pass within one PERIOD
PERIOD: Final = 1.0  # seconds
QUEUE_LINES: Final = 4096  # that may wait for the writing thread
CLOSING_LIMIT: Final = 1.0  # seconds to wait at the end for a stream that takes nothing


class RateLimit(logging.Filter):
    """Lets BURST lines of one kind pass in each PERIOD; the first line after it tells how many did not.

    A kind is an event's name, or else the message before its arguments are filled in. Critical lines always
    pass. The clock is the one in the records.
    """

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[object, list[float]] = {}  # kind -> [start of its period, lines, lines held back]

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the line passes."""
        if record.levelno >= logging.CRITICAL:
            return True
        kind = getattr(record, "event", record.msg)
        window = self._windows.setdefault(kind, [record.created, 0, 0])
        if record.created - window[0] >= PERIOD:
            if window[2]:
                record.suppressed = int(window[2])
            window[:] = [record.created, 0, 0]
        window[1] += 1
        if window[1] <= BURST:
            return True
        window[2] += 1
        return False


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        return json.dumps(
            {
                "time": _time(record),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": record.getMessage(),
                **_fields(record),
            },
            default=str,
        )


class TextFormatter(logging.Formatter):
    """Time, level, message, and the event's own fields as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        message = record.getMessage().replace("\n", "\\n")
        words = [_time(record), f"{record.levelname:<8}", message]
        words += [f"{name}={_word(value)}" for name, value in _fields(record).items()]
        return " ".join(words)


FORMATS: Final[dict[str, type[logging.Formatter]]] = {"text": TextFormatter, "json": JsonFormatter}


class Log(logging.Handler):
    """The log of one process, while it is open."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.lost = 0  # lines that found the queue full
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE_LINES)
        self._writer = threading.Thread(target=self._write, name="log writer", daemon=True)
        self.addFilter(RateLimit())

    def configure(self, level: str, form: str) -> None:
        """Set the level ("debug" to "error") and the format ("text" or "json"), at any time."""
        logging.getLogger("colo_compare").setLevel(level.upper())
        self.setFormatter(FORMATS[form]())

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Take the lines of the whole process, and write what is left of them at the end."""
        root = logging.getLogger()
        root.addHandler(self)
        self._writer.start()
        try:
            yield
        finally:
            root.removeHandler(self)
            with suppress(queue.Full):
                self._lines.put(None, timeout=CLOSING_LIMIT)
            self._writer.join(CLOSING_LIMIT)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one line; drop and count it when the queue is full."""
        if self.lost:
            record.lost = self.lost
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self.lost += 1

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            # A stream that is gone for good must not end this thread: the queue would fill.
            with suppress(OSError, ValueError):
                self._stream.write(line + "\n")
                if self._lines.empty():
                    self._stream.flush()


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if hasattr(record, "event"):
        fields["event"] = record.event
    fields |= getattr(record, "fields", {})
    for name in ("suppressed", "lost"):  # lines before this one: by the rate limit; by a full queue, in all
        if hasattr(record, name):
            fields[name] = getattr(record, name)
    if record.exc_info and record.exc_info[1] is not None:
        fields["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
    return fields


def _word(value: object) -> str:
    if isinstance(value, list):
        value = ",".join(str(item) for item in value)
    text = str(value)
    return json.dumps(text) if not text or any(c in text for c in ' "=\n') else text
