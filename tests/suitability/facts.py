"""Surveys and records for the tests of what is made of them."""

from colo_compare.operate import causes
from colo_compare.operate.causes import Cause
from colo_compare.operate.divergences import Pattern as Kept
from colo_compare.operate.divergences import Record, Said
from colo_compare.suitability.survey import PARTS, FlowCount, Hold, Pattern, Service, Survey

FLOW = "tcp 10.0.0.2:80 - 10.0.0.1:40000"
NOTHING = Said(b"", 0, 0, b"", 0, None)


def record(
    flow: str = FLOW, cause: str = causes.CONTENT, field: str = "", text: str = "x", reason: str = "payload"
) -> Record:
    kept = Kept(reason, cause, field, flow.partition(" - ")[0], 1, 0.0, 0.0, [1])
    return Record(1, 0.0, 0, flow, reason, 0, Cause(cause, text, field), NOTHING, NOTHING, kept)


def survey(
    checkpoints: int = 0, *, seconds: float = 60.0, requests: int = 1000, late: int = 0,
    secondary: int = 2000, cause: str = causes.RANDOM, text: str = "a token", field: str = "Set-Cookie",
    echoes: int = 0,
) -> Survey:  # fmt: skip
    """Give a survey of one service, in which everything has one cause."""
    found = Survey(
        seconds=seconds,
        checkpoint_time=0.05,
        frames=[1000, 2000, secondary],
        compared=2000,
        hold=Hold([0.001, 0.064, 0.512], [1000 - late, 0, late, 0]),
        services=[Service("tcp 80", requests, 10_000, 2_000_000, checkpoints, checkpoints)],
        patterns=[],
        flows=[],
        divergences=checkpoints + echoes,
        echoes=echoes,
        checkpoints=checkpoints,
        parts=[checkpoints, *[0] * (PARTS - 1)],
    )
    if checkpoints:
        found.patterns.append(Pattern("tcp 80", "payload", cause, field, text, checkpoints, checkpoints))
        found.flows.append(FlowCount(FLOW, checkpoints, echoes, [field or cause]))
    return found
