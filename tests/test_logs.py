import errno
import io
import json
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from colo_compare.logs import BURST, PERIOD, QUEUE_LINES, JsonFormatter, Log, RateLimit, TextFormatter

NOON = 1767268800.25  # 2026-01-01 12:00:00.25 UTC


def record(
    message: str = "checkpoint committed", *args: object, at: float = NOON, **extra: Any
) -> logging.LogRecord:
    level = extra.pop("level", logging.INFO)
    made = logging.LogRecord("colo_compare.loop", level, __file__, 1, message, args, None)
    made.created = at
    for name, value in extra.items():
        setattr(made, name, value)
    return made


def with_error(message: str) -> logging.LogRecord:
    made = record(message, level=logging.ERROR)
    error = ValueError("no such thing")
    made.exc_info = (ValueError, error, None)
    return made


def test_text_has_the_time_the_level_and_the_fields() -> None:
    line = TextFormatter().format(
        record("held", event="Divergence", fields={"epoch": 4, "reasons": ["fin", "rst"]})
    )
    assert line == "2026-01-01T12:00:00.250Z INFO     held event=Divergence epoch=4 reasons=fin,rst"


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('"', r'"\""'),
        ("a\nb", r'"a\nb"'),
    ],
)
def test_text_quotes_what_would_be_ambiguous(value: str, word: str) -> None:
    assert TextFormatter().format(record(fields={"detail": value})).endswith(f" detail={word}")


def test_text_is_one_line_whatever_the_message() -> None:
    assert "\n" not in TextFormatter().format(record("stderr: %s", "a\nb"))


def test_json_is_one_object_a_line() -> None:
    line = JsonFormatter().format(record("held %d\nframes", 3, event="X", fields={"epoch": 4}))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2026-01-01T12:00:00.250Z",
        "level": "info",
        "logger": "colo_compare.loop",
        "message": "held 3\nframes",
        "event": "X",
        "epoch": 4,
    }


@pytest.mark.parametrize("form", [TextFormatter, JsonFormatter])
def test_an_exception_is_a_field_and_no_traceback(form: type[logging.Formatter]) -> None:
    line = form().format(with_error("not taken"))
    assert "ValueError: no such thing" in line
    assert "\n" not in line


def test_the_rate_limit_tells_how_much_it_held_back() -> None:
    limit = RateLimit()
    passed = [limit.filter(record("lost %d", n)) for n in range(BURST + 5)]
    assert passed == [True] * BURST + [False] * 5
    assert limit.filter(record("something else"))  # another kind has its own count
    later = record("lost %d", 99, at=NOON + PERIOD)
    assert limit.filter(later)
    assert "suppressed=5" in TextFormatter().format(later)
    after = record("lost %d", 100, at=NOON + PERIOD)
    assert limit.filter(after)
    assert "suppressed" not in TextFormatter().format(after)


def test_the_rate_limit_counts_events_by_their_kind() -> None:
    limit = RateLimit()
    for n in range(BURST):
        assert limit.filter(record(f"message {n}", event="Divergence"))
    assert not limit.filter(record("yet another message", event="Divergence"))


def test_critical_lines_always_pass() -> None:
    limit = RateLimit()
    assert all(limit.filter(record(level=logging.CRITICAL)) for _ in range(BURST * 2))


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of the package whose level is put back afterwards."""
    package = logging.getLogger("colo_compare")
    level = package.level
    yield logging.getLogger("colo_compare.test")
    package.setLevel(level)


def test_lines_reach_the_stream_in_order(logger: logging.Logger) -> None:
    stream = io.StringIO()
    log = Log(stream)
    log.configure("info", "json")
    with log.opened():
        logger.debug("too small")
        for n in range(3):
            logger.info("line %d", n)
        log.configure("warning", "text")
        logger.info("too small now")
        logger.warning("the last")
    logger.warning("after the end")
    first, second, third, last = stream.getvalue().splitlines()
    assert [json.loads(line)["message"] for line in (first, second, third)] == ["line 0", "line 1", "line 2"]
    assert last.endswith("WARNING  the last")


class Stuck(io.StringIO):
    """A stream that takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.lines: list[str] = []

    def write(self, text: str, /) -> int:
        self.entered.set()
        self.let_go.wait()
        self.lines.append(text)
        return len(text)


def test_a_stuck_stream_costs_lines_but_never_waits(logger: logging.Logger) -> None:
    stream = Stuck()
    log = Log(stream)
    log.configure("info", "text")
    with log.opened():
        logger.info("the one that the stream is stuck with")
        stream.entered.wait()
        for n in range(QUEUE_LINES + 3):
            logger.critical("line %d", n)  # returns at once each time
        assert log.lost == 3
        stream.let_go.set()
    assert len(stream.lines) == 1 + QUEUE_LINES


class Gone(io.StringIO):
    """A pipe whose reader has died."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts = 0

    def write(self, text: str, /) -> int:
        self.attempts += 1
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def test_a_stream_that_is_gone_does_not_end_the_log(logger: logging.Logger) -> None:
    stream = Gone()
    log = Log(stream)
    log.configure("info", "text")
    with log.opened():
        for _ in range(3):
            logger.info("into the void")
    assert stream.attempts == 3
