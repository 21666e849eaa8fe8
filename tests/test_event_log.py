import json
import logging

import pytest

from colo_compare.core.actions import (
    CheckpointAborted,
    CheckpointCommitted,
    CheckpointRequest,
    CheckpointRequested,
    Divergence,
    Event,
    ModeChanged,
    Promoted,
    SecondaryJoined,
    SideLost,
)
from colo_compare.core.sides import SECONDARY
from colo_compare.event_log import event_fields, log_event
from colo_compare.logs import TextFormatter

FLOW = "10.0.0.2:80 - 10.0.0.1:40000 tcp"

EVENTS = [
    (
        Divergence(1.0, 7, 2, FLOW, "payload", 40, b"secret one", b"secret two"),
        logging.INFO,
        f'event=Divergence id=7 epoch=2 flow="{FLOW}" reason=payload offset=40',
    ),
    (
        CheckpointRequested(1.0, CheckpointRequest(3, ("payload", "timeout"), FLOW)),
        logging.INFO,
        f'event=CheckpointRequested epoch=3 reasons=payload,timeout flow="{FLOW}"',
    ),
    (
        CheckpointCommitted(1.0, 3, ("payload",), 0.0123456789, 5, 6),
        logging.INFO,
        "event=CheckpointCommitted epoch=3 reasons=payload request_to_commit=0.012346 released=5 discarded=6",
    ),
    (
        CheckpointAborted(1.0, 3, "exit status 1"),
        logging.ERROR,
        'event=CheckpointAborted epoch=3 detail="exit status 1"',
    ),
    (
        ModeChanged(1.0, "protect", "solo", "the secondary is lost"),
        logging.WARNING,
        'event=ModeChanged old=protect new=solo why="the secondary is lost"',
    ),
    (SideLost(1.0, SECONDARY, 8, 9), logging.ERROR, "event=SideLost side=secondary released=8 discarded=9"),
    (Promoted(1.0, 1, 2, 3, 4), logging.WARNING, "event=Promoted discarded=1 flushed=2 flows=3 rewritten=4"),
    (
        SecondaryJoined(1.0, "primary", "packet:c"),
        logging.INFO,
        "event=SecondaryJoined port=primary url=packet:c",
    ),
    (Event(1.0), logging.INFO, "event=Event"),
]


@pytest.mark.parametrize(("event", "level", "words"), EVENTS)
def test_an_event_is_one_line_without_payload(
    event: Event, level: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "colo_compare"):
        log_event(event)
    (record,) = caplog.records
    assert record.levelno == level
    line = TextFormatter().format(record)
    assert line.endswith(words)
    assert "secret" not in line


@pytest.mark.parametrize(("event", "level", "words"), EVENTS)
def test_fields_are_what_json_can_carry(event: Event, level: int, words: str) -> None:
    fields = event_fields(event)
    assert fields == json.loads(json.dumps(fields))


def test_nothing_is_written_below_the_level(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "colo_compare"):
        log_event(ModeChanged(1.0, "protect", "solo", "the secondary is lost"))
    assert caplog.records == []
