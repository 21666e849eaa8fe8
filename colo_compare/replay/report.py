"""A verdict, for people and for programs."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Final

from colo_compare.core.actions import Divergence
from colo_compare.replay.verdict import Verdict
from colo_compare.wire.frame import KIND_NAMES

FORMAT_VERSION: Final = 1  # of the JSON form: grows when a field changes its meaning or goes away
_ROW: Final = 8  # bytes of each side on one line: the two fit into 80 columns
_SHOWN: Final = 20  # divergences that the text form shows; the JSON form has all


def as_json(verdict: Verdict) -> str:
    """Give the JSON form, documented in docs/replay.md."""
    timeline = verdict.timeline
    waits = verdict.waits
    return json.dumps(
        {
            "version": FORMAT_VERSION,
            "equal": verdict.equal,
            "notes": timeline.notes(),
            "guest": {"mac": str(timeline.guests), "why": timeline.guests.why},
            "clock": {"aligned": timeline.aligned, "secondary_shift": timeline.secondary_shift / 1e9},
            "frames": verdict.frames(),
            "flows": verdict.counters.flows_opened,
            "bytes_compared": verdict.counters.compared_bytes,
            "unplaced": verdict.unplaced,
            "divergences": [
                {
                    "id": divergence.id,
                    "at": divergence.at,
                    "flow": divergence.flow,
                    "reason": divergence.reason,
                    "offset": divergence.offset,
                    "primary": divergence.primary.hex(),
                    "secondary": divergence.secondary.hex(),
                }
                for divergence in verdict.divergences
            ],
            "checkpoints": checkpoints(verdict),
            "hold_seconds": {
                "frames": waits.frames,
                "p50": waits.p50,
                "p99": waits.p99,
                "max": waits.max,
                "waited": waits.waited,
            },
            "counters": verdict.counters.snapshot(),
        },
        indent=2,
    )


def checkpoints(verdict: Verdict) -> dict[str, int]:
    """Give how many checkpoints would have been asked for, by reason."""
    return dict(Counter(divergence.reason for divergence in verdict.divergences))


def as_text(verdict: Verdict) -> Iterator[str]:
    """Give the text form, line by line."""
    timeline = verdict.timeline
    yield f"guest     {timeline.guests}: {timeline.guests.why}"
    if timeline.aligned:
        shift = f"{timeline.secondary_shift / 1e9:+.6f} s for the secondary"
        yield f"clocks    aligned by the first common frame ({shift})"
    else:
        yield "clocks    taken as they are"
    for note in timeline.notes():
        yield f"note      {note}"
    for divergence in verdict.divergences[:_SHOWN]:
        yield ""
        yield from divergence_text(divergence)
    if len(verdict.divergences) > _SHOWN:
        yield ""
        yield f"... and {len(verdict.divergences) - _SHOWN} more (--json has all)"
    yield ""
    yield from _summary(verdict)


def divergence_text(divergence: Divergence) -> Iterator[str]:
    """Show one divergence with both sides' bytes side by side; ``!`` marks rows that differ."""
    yield (
        f"divergence {divergence.id} at {divergence.at:.6f} s: {divergence.reason}, {divergence.flow}, "
        f"offset {divergence.offset}"
    )
    yield f"  {'offset':<8}   {'primary':<{_ROW * 4}}   secondary"
    for row in range(0, max(len(divergence.primary), len(divergence.secondary), 1), _ROW):
        one = divergence.primary[row : row + _ROW]
        other = divergence.secondary[row : row + _ROW]
        mark = " " if one == other else "!"
        yield f"  {divergence.offset + row:08x} {mark} {_hex(one)}   {_hex(other)}".rstrip()


def _hex(data: bytes) -> str:
    """Give one row of one side: hex, then ASCII, padded to a fixed width."""
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
    return f"{data.hex(' '):<{_ROW * 3 - 1}} {text:<{_ROW}}"


def _summary(verdict: Verdict) -> Iterator[str]:
    counters = verdict.counters
    frames = verdict.frames()
    yield "frames    " + ", ".join(f"{count:,} {name}" for name, count in frames.items())
    yield "kinds     " + _listed(dict(zip(KIND_NAMES, counters.kinds, strict=True)))
    yield "secondary " + _listed(counters.secondary)
    yield f"flows     {counters.flows_opened:,}"
    yield f"compared  {counters.compared_bytes:,} bytes equal"
    waits = verdict.waits
    yield (
        f"hold time p50 {_span(waits.p50)}, p99 {_span(waits.p99)}, max {_span(waits.max)}; "
        f"{waits.waited:,} of {waits.frames:,} frames would have waited"
    )
    if verdict.unplaced:
        yield (
            f"note      {verdict.unplaced:,} frames of connections that began before the captures "
            "could not be compared"
        )
    if verdict.equal:
        yield "EQUAL     no checkpoint would have been needed"
    else:
        yield (
            f"DIVERGED  {len(verdict.divergences):,} checkpoints would have been needed: "
            f"{_listed(checkpoints(verdict))}"
        )


def _listed(counts: dict[str, int]) -> str:
    """List what is not zero."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "none"


def _span(seconds: float) -> str:
    """Give a time span in milliseconds, in which people think of latency."""
    return f"{seconds * 1000:.3f} ms"
