"""What the core tells, as lines of the log: one line an event, and never a frame's contents."""

import logging
from typing import Any, Final

from colo_compare.core.actions import (
    CheckpointAborted,
    CheckpointCommitted,
    CheckpointRequested,
    Divergence,
    Event,
    ModeChanged,
    Promoted,
    SecondaryJoined,
    SideLost,
)
from colo_compare.core.sides import SIDE_NAMES

logger: Final = logging.getLogger(__name__)


def log_event(event: Event) -> None:
    """Write one event to the log."""
    level, message = _line(event)
    if logger.isEnabledFor(level):
        fields = event_fields(event)
        logger.log(level, message, extra={"event": fields.pop("event"), "fields": fields})


def event_fields(event: Event) -> dict[str, Any]:
    """Give an event's fields by name, for the log and for `status`: numbers, texts and lists only.

    "event" is its kind. Left out are `at`, which is a time of a clock that nobody reads, and what the two
    guests said where they diverged: payload.
    """
    kind = {"event": type(event).__name__}
    if isinstance(event, Divergence):
        return kind | {
            "id": event.id,
            "epoch": event.epoch,
            "flow": event.flow,
            "reason": event.reason,
            "offset": event.offset,
        }
    if isinstance(event, CheckpointRequested):
        request = event.request
        return kind | {"epoch": request.epoch, "reasons": list(request.reasons), "flow": request.flow}
    if isinstance(event, CheckpointCommitted):
        return kind | {
            "epoch": event.epoch,
            "reasons": list(event.reasons),
            "request_to_commit": round(event.request_to_commit, 6),
            "released": event.released,
            "discarded": event.discarded,
        }
    if isinstance(event, CheckpointAborted):
        return kind | {"epoch": event.epoch, "detail": event.detail}
    if isinstance(event, ModeChanged):
        return kind | {"old": event.old, "new": event.new, "why": event.why}
    if isinstance(event, SideLost):
        return kind | {
            "side": SIDE_NAMES[event.side],
            "released": event.released,
            "discarded": event.discarded,
        }
    if isinstance(event, Promoted):
        return kind | {
            "discarded": event.discarded,
            "flushed": event.flushed,
            "flows": event.flows,
            "rewritten": event.rewritten,
        }
    if isinstance(event, SecondaryJoined):
        return kind | {"port": event.port, "url": event.url}
    return kind


def _line(event: Event) -> tuple[int, str]:
    if isinstance(event, Divergence):
        return logging.INFO, "the secondary said something else"
    if isinstance(event, CheckpointRequested):
        return logging.INFO, "checkpoint requested"
    if isinstance(event, CheckpointCommitted):
        return logging.INFO, "checkpoint committed"
    if isinstance(event, CheckpointAborted):
        return logging.ERROR, "checkpoint aborted"
    if isinstance(event, ModeChanged):
        return logging.WARNING, "mode changed"
    if isinstance(event, SideLost):
        return logging.ERROR, "side lost"
    if isinstance(event, Promoted):
        return logging.WARNING, "the secondary took over"
    if isinstance(event, SecondaryJoined):
        return logging.INFO, "a new secondary joined"
    return logging.INFO, type(event).__name__
