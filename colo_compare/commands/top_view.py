"""What `top` shows, as lines of text: made from two answers to `activity`, and from nothing else."""

import math
from datetime import UTC, datetime
from typing import Any, Final

from colo_compare.commands.terminal import BOLD, PLAIN, REVERSE

_BARS: Final = " ▁▂▃▄▅▆▇█"
_ASCII_BARS: Final = " ...::::#"
_BAR_ROWS: Final = 3
_COLUMN: Final = 4  # characters a bucket
_PANE: Final = 46  # columns of the left one of two panes, at a width of 80


class View:
    """Turns answers into lines, and remembers the one before for the rates."""

    def __init__(self, *, colours: bool, blocks: bool = True) -> None:
        """`blocks`: whether the characters for bars can be shown; else they are made of ASCII."""
        self._colours = colours
        self._bars = _BARS if blocks else _ASCII_BARS
        self._before: dict[str, Any] | None = None
        self._now: dict[str, Any] = {}

    def update(self, activity: dict[str, Any]) -> None:
        """Take the next answer."""
        self._before = self._now or None
        self._now = activity

    def lines(self, width: int, height: int, footer: str = "") -> list[str]:
        """Give at most `height` lines of at most `width` columns."""
        status = self._now["status"]
        lines = [self._verdict(status, width), *self._state(status), ""]
        lines += [*self._ports(status), *self._rates(status), ""]
        lines += [*self._hold(width), ""]
        room = height - len(lines) - (1 if footer else 0)
        lines += self._panes(width, room)
        lines = [line if PLAIN in line else line[:width] for line in lines[: height - (1 if footer else 0)]]
        if footer:
            lines += [""] * (height - 1 - len(lines)) + [footer[:width]]
        return lines

    # Parts

    def _verdict(self, status: dict[str, Any], width: int) -> str:
        text = "PROTECTED" if status["protected"] else f"UNPROTECTED: {status['why']}"
        text += "".join(f", {word}" for word in ("draining", "stopping") if status[word])
        text = text[:width]
        if not self._colours:
            return text
        return f"{BOLD if status['protected'] else REVERSE}{text.ljust(width)}{PLAIN}"

    def _state(self, status: dict[str, Any]) -> list[str]:
        backend, held, last = status["checkpointer"], status["held"], status["checkpoint"]["last"]
        ready = "ready" if backend["ready"] else "not ready"
        what = f"{_span(last['seconds_ago'])} ago for {', '.join(last['reasons'])}" if last else "none"
        first = f"mode {status['mode']}, epoch {status['epoch']}, {status['checkpoint']['state']}"
        first += f", up {_span(status['uptime'])}, checkpointer {backend['backend']} {ready}"
        second = f"held {held['frames']} frames, {_size(held['bytes'])}, up to {_span(held['oldest'])}"
        return [first, f"{second}; last checkpoint {what}"]

    def _ports(self, status: dict[str, Any]) -> list[str]:
        lines = [
            f"{'':10}{'in/s':>9}{'bytes/s':>10}{'out/s':>9}{'bytes/s':>10}{'backlog':>9}{'lost':>6}  role"
        ]
        for name, port in status["ports"].items():
            lost = port["dropped"] + port["dropped_receive"] + port["dropped_send"]
            line = f"{name:<10}"
            for way in ("received", "sent"):
                line += f"{_count(self._rate('ports', name, f'{way}_frames')):>9}"
                line += f"{_size(self._rate('ports', name, f'{way}_bytes')):>10}"
            state = port["role"] + ("" if port["connected"] or port["role"] == "lost" else ", down")
            state += ", held back" if port["held_back"] else ""
            lines.append(f"{line}{port['backlog']:>9}{lost:>6}  {state}")
        return lines

    def _rates(self, status: dict[str, Any]) -> list[str]:
        counters = status["counters"]
        released = {name: self._rate("counters", "released", name) for name in counters["released"]}
        diverged = {name: self._rate("counters", "divergences", name) for name in counters["divergences"]}
        flows = {name: count for name, count in status["flows"].items() if count}
        total = f"in all {sum(counters['divergences'].values())}"
        return [
            f"released/s     {_words(released)}",
            f"divergences/s  {_words(diverged)}; {total}, checkpoints {counters['checkpoints']['committed']}",
            f"flows          {', '.join(f'{name} {count}' for name, count in flows.items()) or 'none'}",
        ]

    def _hold(self, width: int) -> list[str]:
        """Draw how long the frames had waited that were released since the answer before."""
        hold = self._now["hold"]
        counts = list(hold["counts"])
        if self._before is not None:
            counts = [now - old for now, old in zip(counts, self._before["hold"]["counts"], strict=True)]
        most = max(counts)
        shown = min(len(counts), max((width - 10) // _COLUMN, 1))
        rows = []
        for row in reversed(range(_BAR_ROWS)):
            cells = [self._bars[_fill(count, most, row)] * (_COLUMN - 1) for count in counts[:shown]]
            label = f"{most:>8} " if row == _BAR_ROWS - 1 and most else " " * 9
            rows.append((label + " ".join(cells)).rstrip())
        # Every second bound is named: there is no room for all of them.
        bounds = hold["bounds"][: shown - 1]
        axis = "".join(f"{_short(bound):<{2 * _COLUMN}}" for bound in bounds[::2])
        title = "how long what was released since the last look had waited, at most"
        return [title, *rows, f"{'':9}{axis}longer".rstrip()]

    def _panes(self, width: int, room: int) -> list[str]:
        if room < 2:
            return []
        left_width = max(width * _PANE // 80, 20)
        left = ["the most divergences, of the last 256", *self._flows(left_width)]
        right = ["last checkpoints", *self._checkpoints()]
        lines = []
        for number in range(min(room, max(len(left), len(right)))):
            one = left[number] if number < len(left) else ""
            two = right[number] if number < len(right) else ""
            lines.append(f"{one[: left_width - 1]:<{left_width}}{two}".rstrip())
        return lines

    def _flows(self, width: int) -> list[str]:
        flows = self._now["flows"]
        return [f"{one['divergences']:>5}  {one['flow']}"[:width] for one in flows] or ["       none"]

    def _checkpoints(self) -> list[str]:
        lines = []
        for event in reversed(self._now["checkpoints"]):
            moment = f"{datetime.fromtimestamp(event['time'], UTC).astimezone():%H:%M:%S}"
            if event["event"] == "CheckpointCommitted":
                took = _span(event["request_to_commit"])
                lines.append(f"{moment} {event['epoch']} {took} {','.join(event['reasons'])}")
            else:
                lines.append(f"{moment} {event['epoch']} aborted: {event['detail']}")
        return lines or ["none"]

    def _rate(self, *path: str) -> float:
        """Give how much a number of the status has grown a second."""
        if self._before is None:
            return 0.0
        now, old = self._now["status"], self._before["status"]
        seconds = now["uptime"] - old["uptime"]
        for key in path:
            now, old = now[key], old.get(key, 0)
        grown: float = now - old
        return max(grown / seconds, 0.0) if seconds > 0 else 0.0


def _fill(count: int, most: int, row: int) -> int:
    """Give the eighths of one row that a bar fills, rows counted from the bottom.

    Whatever is not zero can be seen.
    """
    if not count:
        return 0
    steps = max(math.ceil(count / most * _BAR_ROWS * 8), 1)
    return min(max(steps - row * 8, 0), 8)


def _words(rates: dict[str, float]) -> str:
    return ", ".join(f"{name} {_count(rate)}" for name, rate in rates.items() if rate) or "0"


def _count(number: float) -> str:
    """Give a rate in at most six characters."""
    if number >= 999_950:
        return f"{number / 1e6:.1f}M"
    if number >= 9_999.5:
        return f"{number / 1e3:.0f}k"
    return f"{number:.0f}" if number >= 10 or number == 0 else f"{number:.1f}"


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1023.5 or unit == "GiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" or number >= 99.5 else f"{number:.1f} {unit}"


def _span(seconds: float) -> str:
    """Give a duration in its largest sensible unit."""
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _short(seconds: float) -> str:
    """Give a bound in three characters, as far as it goes."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f}u"
    return f"{seconds * 1000:.0f}m" if seconds < 1 else f"{seconds:.0f}s"
