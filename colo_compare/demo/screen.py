"""What the demo shows: lines for 80 columns, one that moves where there is a terminal, a verdict."""

import os
import shutil
import sys
import textwrap
from typing import Final, TextIO

WIDTH: Final = 80
INDENT: Final = "   "

# Select Graphic Rendition (ECMA-48, 8.3.117)
_BOLD: Final = "1"
_RED: Final = "31"
_GREEN: Final = "32"


class Screen:
    """Writes for a person, and keeps what was found for the summary at the end.

    Without a terminal (a pipe, a CI log) there are no control codes and no moving line; with NO_COLOR set
    there are no colours.
    """

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._moves = out.isatty()
        self._coloured = self._moves and not os.environ.get("NO_COLOR")  # https://no-color.org
        self._moving = False
        self._rows: list[tuple[str, str, bool]] = []

    def all_held(self) -> bool:
        """Say whether everything that was checked so far was found as it must be."""
        return bool(self._rows) and all(held for _, _, held in self._rows)

    def title(self, text: str) -> None:
        """Begin a part."""
        self.say("")
        self._write(f"{self._dressed(text, _BOLD)}\n")

    def say(self, text: str) -> None:
        """Write a paragraph."""
        lines = textwrap.wrap(text, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT) or [""]
        self._write("".join(f"{line}\n" for line in lines))

    def show(self, text: str) -> None:
        """Write lines as they are."""
        self._write("".join(f"{INDENT}{line}".rstrip() + "\n" for line in text.splitlines()))

    def move(self, text: str) -> None:
        """Rewrite the moving line (nothing without a terminal)."""
        if self._moves:
            width = min(WIDTH, shutil.get_terminal_size().columns)
            self._out.write(f"\r\x1b[K{INDENT}{text}"[: width + 3])
            self._out.flush()
            self._moving = True

    def check(self, what: str, seen: str, held: bool) -> None:
        """Keep a row for the summary: what was looked at, what was seen, whether it is as it must be."""
        self._rows.append((what, seen, held))

    def summary(self) -> None:
        """Write the table of all that was checked."""
        self.title("Summary")
        widest = max(len(what) for what, _, _ in self._rows)
        for what, seen, held in self._rows:
            verdict = self._dressed(*(("ok    ", _GREEN) if held else ("FAILED", _RED)))
            self._write(f"{INDENT}{verdict}  {what:<{widest}}  {seen}\n")
        self.say("")
        self.say("Everything held." if self.all_held() else "NOT everything held.")

    def rest(self) -> None:
        """Take the moving line away."""
        if self._moving:
            self._out.write("\r\x1b[K")
            self._out.flush()
            self._moving = False

    def _write(self, text: str) -> None:
        self.rest()
        self._out.write(text)
        self._out.flush()

    def _dressed(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._coloured else text
