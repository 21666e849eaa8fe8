"""Two pieces of bytes side by side, in hexadecimal and as text, in 80 columns."""

from collections.abc import Iterator
from typing import Final

ROW: Final = 8  # bytes a line and side


def hex_diff(
    ours: bytes, our_at: int, theirs: bytes, their_at: int, offset: int, near: int | None = None
) -> Iterator[str]:
    """Give the lines. `our_at` and `their_at` are the places that belong together; they stand at `offset`.

    Lines begin at multiples of ROW. One in which bytes differ has ``!`` between its two sides, and a line
    below it points to them. What only one side has is not marked: the excerpts may end at different places.
    `near`: leave out what is more lines than that away from a difference, and put one ``...`` in its place.
    """
    yield f"{'':10}{'primary':<35}secondary"
    low = -max(our_at, their_at)
    low -= (offset + low) % ROW
    high = max(len(ours) - our_at, len(theirs) - their_at)
    rows = []
    for start in range(low, high, ROW):
        left = [_byte(ours, our_at + start + n) for n in range(ROW)]
        right = [_byte(theirs, their_at + start + n) for n in range(ROW)]
        marks = [None not in {a, b} and a != b for a, b in zip(left, right, strict=True)]
        rows.append((max(offset + start, 0), left, right, marks))
    shown = _shown([any(marks) for *_, marks in rows], near)
    left_out = False
    for (at, left, right, marks), show in zip(rows, shown, strict=True):
        if not show:
            if not left_out:
                yield "..."
            left_out = True
            continue
        left_out = False
        mark = "!" if any(marks) else " "
        yield f"{at:08x}  {_side(left)} {mark} {_side(right)}".rstrip()
        if any(marks):
            pointer = " ".join("^^" if differs else "  " for differs in marks)
            yield f"{'':10}{pointer}{'':12}{pointer}".rstrip()


def _shown(differs: list[bool], near: int | None) -> list[bool]:
    """Say which lines are to be seen: all, where nothing differs or `near` is None."""
    if near is None or not any(differs):
        return [True] * len(differs)
    return [any(differs[max(number - near, 0) : number + near + 1]) for number in range(len(differs))]


def _byte(data: bytes, at: int) -> int | None:
    return data[at] if 0 <= at < len(data) else None


def _side(row: list[int | None]) -> str:
    numbers = " ".join("  " if byte is None else f"{byte:02x}" for byte in row)
    text = "".join(" " if byte is None else chr(byte) if 32 <= byte < 127 else "." for byte in row)
    return f"{numbers} {text}"
