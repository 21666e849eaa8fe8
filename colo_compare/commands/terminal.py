"""A terminal taken over for a while, and given back as it was, however that ends."""

import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

# DEC private modes, as xterm, the Linux console and tmux know them: alternate screen, cursor, line wrap.
_TAKE: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_GIVE_BACK: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_END_OF_LINE: Final = "\x1b[K"
_REST: Final = "\x1b[J"
BOLD: Final = "\x1b[1m"
REVERSE: Final = "\x1b[7m"
PLAIN: Final = "\x1b[0m"


class Terminated(BaseException):
    """SIGTERM or SIGHUP has come."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Terminal:
    """Standard input and output, while they are taken over."""

    def __init__(self, keys: bool) -> None:
        self._keys = keys  # whether there is a keyboard

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now."""
        columns, lines = shutil.get_terminal_size()
        return columns, lines

    def show(self, lines: list[str]) -> None:
        """Draw lines in place of what is there. They may hold BOLD, REVERSE and PLAIN."""
        body = f"{_END_OF_LINE}\r\n".join(lines)
        sys.stdout.write(f"{_HOME}{body}{_END_OF_LINE}{_REST}")
        sys.stdout.flush()

    def wait(self, seconds: float) -> str:
        """Wait for a key, for so long; give it, "" if none came."""
        if not self._keys:
            time.sleep(seconds)
            return ""
        ready = select.select([sys.stdin], [], [], seconds)[0]
        return os.read(sys.stdin.fileno(), 16).decode("ascii", "replace") if ready else ""


@contextmanager
def taken_over() -> Iterator[Terminal]:
    """Take the terminal over; give it back also after an error, Ctrl-C, SIGTERM and SIGHUP.

    SIGTERM and SIGHUP raise Terminated meanwhile.
    """
    keys = sys.stdin.isatty()
    before = termios.tcgetattr(sys.stdin) if keys else None
    handlers = {number: signal.signal(number, _terminate) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        if keys:
            tty.setcbreak(sys.stdin)
        sys.stdout.write(_TAKE)
        yield Terminal(keys)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.stdout.write(_GIVE_BACK)
        sys.stdout.flush()
        if before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)
