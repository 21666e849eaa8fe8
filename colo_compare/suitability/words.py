"""A verdict as text, and the words that its forms share."""

from collections.abc import Iterator, Sequence
from typing import Final

from colo_compare.core.sides import SIDE_NAMES
from colo_compare.suitability.survey import Survey
from colo_compare.suitability.verdict import Verdict, rates

_SHOWN: Final = 8  # rows of each table
_RATES: Final = ("checkpoints/min", "per 1,000 requests")  # of its service's


def as_text(verdict: Verdict) -> Iterator[str]:
    """Give the verdict as lines, the answer first."""
    yield verdict.headline
    yield from (f"  {reason}" for reason in verdict.reasons)
    yield ""
    yield from (f"{name:<15} {words}" for name, words in facts(verdict))
    for title, header, rows in tables(verdict):
        yield ""
        yield title
        yield from (f"  {line}" for line in _columns([header, *rows[:_SHOWN]]))
        if len(rows) > _SHOWN:
            yield f"  and {len(rows) - _SHOWN} more"
    if verdict.advice:
        yield ""
        yield "what would help"
        yield from (f"  {line}" for line in verdict.advice)


def facts(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """Give the figures in words: what, and how much."""
    survey, found, waits = verdict.survey, verdict.rates, verdict.waiting
    requests = sum(service.requests for service in survey.services)
    frames = ", ".join(f"{name} {count}" for name, count in zip(SIDE_NAMES, survey.frames, strict=True))
    yield "observed", f"{span(survey.seconds)}, {requests} requests; frames: {frames}"
    per_thousand = "" if found.per_thousand is None else f", {found.per_thousand:.2f} in 1,000 requests"
    yield "checkpoints", f"{survey.checkpoints}: {found.per_minute:.1f} a minute{per_thousand}"
    shared = survey.divergences - survey.echoes - survey.checkpoints
    yield (
        "divergences",
        f"{survey.divergences}, of which {survey.echoes} are echoes and {shared} would share a checkpoint",
    )
    yield (
        "standing still",
        f"{found.standing_still:.2%} of the time, at {span(survey.checkpoint_time)} a checkpoint",
    )
    held = f"{waits.share:.1%} of the primary's frames"
    if waits.share:
        held += f": half of them up to {span(waits.median)}, 99 % up to {span(waits.p99)}"
    yield "held", held


def tables(verdict: Verdict) -> Iterator[tuple[str, Sequence[str], list[list[str]]]]:
    """Give the tables: title, header, rows. Those without rows are left out."""
    survey = verdict.survey
    requests = {one.name: one.requests for one in survey.services}
    services = [
        [one.name, str(one.requests), *_rates(one.checkpoints, survey, one.requests)]
        for one in survey.services
    ]
    patterns = [
        [
            *_rates(one.checkpoints, survey, requests[one.service]), str(one.divergences), one.service,
            one.cause.replace("_", " ") or "-", one.field or "-", one.text,
        ]
        for one in survey.patterns
    ]  # fmt: skip
    flows = [
        [str(one.divergences), str(one.echoes), one.flow, ", ".join(one.fields).replace("_", " ")]
        for one in survey.flows
    ]
    for title, header, rows in (
        ("by port", ("service", "requests", *_RATES), services),
        ("by cause", (*_RATES, "divergences", "service", "cause", "field", "what"), patterns),
        ("worst flows", ("divergences", "echoes", "flow", "what differs"), flows),
    ):
        if rows:
            yield title, header, rows


def _rates(checkpoints: int, survey: Survey, requests: int) -> list[str]:
    found = rates(checkpoints, survey, requests)
    per_thousand = "-" if found.per_thousand is None else f"{found.per_thousand:.2f}"
    return [f"{found.per_minute:.1f}", per_thousand]


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def span(seconds: float) -> str:
    """Give a time span for people."""
    if seconds == float("inf"):
        return "more than 8 s"
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms"), (120.0, 1.0, "s")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds / 60:.0f} min"
