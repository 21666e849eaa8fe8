"""What `colo-compare status` shows: the state of one loop as plain values."""

from typing import Any, Final

import trio

from colo_compare import __version__
from colo_compare.build import is_compiled
from colo_compare.checkpoint.contract import Figures
from colo_compare.core.actions import CheckpointCommitted
from colo_compare.core.settings import BLOCK, BYPASS, OBSERVE, SOLO
from colo_compare.event_log import event_fields
from colo_compare.link import LOST, Link
from colo_compare.loop import Loop

_WHY_UNPROTECTED: Final = {
    OBSERVE: "mode observe only counts what would have diverged",
    SOLO: "the secondary is lost, one guest runs alone",
    BLOCK: "the secondary is lost, and everything is held until there is one again",
    BYPASS: "bypassed by an operator's decision",
}


def verdict(loop: Loop) -> str:
    """Give the state in one line: PROTECTED, or why not."""
    proxy = loop.proxy
    if proxy.protected:
        text = f"PROTECTED, epoch {proxy.epoch}"
    else:
        text = f"UNPROTECTED: {_why_unprotected(proxy.mode, proxy.checkpoint_state)}"
    return text + (", draining" if loop.draining else "") + (", stopping" if loop.stopping else "")


def loop_status(loop: Loop, backend: str) -> dict[str, Any]:
    """Give the state of a loop: texts, numbers, booleans, lists and dictionaries of them."""
    proxy = loop.proxy
    now = trio.current_time()
    return {
        "version": __version__,
        "compiled": is_compiled(),
        "uptime": now - loop.started_at,  # seconds
        "mode": proxy.mode,
        "protected": proxy.protected,
        "why": "" if proxy.protected else _why_unprotected(proxy.mode, proxy.checkpoint_state),
        "stopping": loop.stopping,
        "draining": loop.draining,
        "epoch": proxy.epoch,
        "checkpoint": {
            "state": proxy.checkpoint_state,
            "last": _last(loop.measures.last_checkpoint, now),
            "figures": _figures(loop.checkpointing.last_figures),
        },
        "held": {
            "frames": proxy.held_frames,
            "bytes": proxy.held_bytes,
            "oldest": proxy.oldest_held(now),  # seconds
            "client_frames": proxy.client_waiting,  # for a checkpoint to be over
        },
        "flows": proxy.flows(),
        "promoted": loop.failover.reason,
        "joining": _joining(loop, now),
        "ports": {link.name: _port(link) for link in loop.links},
        "checkpointer": {
            "backend": backend,
            "ready": loop.checkpointing.checkpointer.ready and not loop.checkpointing.ended,
            "ended": loop.checkpointing.ended,
            "figures": dict(loop.checkpointing.checkpointer.figures()),
        },
        "counters": proxy.counters.snapshot(),
        "events": [{"seconds_ago": now - event.at, **event_fields(event)} for event in loop.events],
    }


def _why_unprotected(mode: str, checkpoint_state: str) -> str:
    why = _WHY_UNPROTECTED.get(mode)
    if why is None:
        why = f"no checkpoint has been committed yet (state: {checkpoint_state})"
    return why


def _joining(loop: Loop, now: float) -> dict[str, Any]:
    protection = loop.protection
    return {"port": protection.url, "seconds": now - protection.since} if protection.url else {}


def _port(link: Link) -> dict[str, Any]:
    counters = link.port.counters
    return {
        "url": link.port.url,
        "role": link.role_name,
        "connected": link.role != LOST and link.port.connected,
        "failure": link.failure,
        "held_back": link.waits_at_gate,  # not being read now (back-pressure)
        "backlog": len(link.backlog),  # frames that the port has not taken yet
        "dropped": link.dropped,
        "received_frames": counters.received_frames,
        "received_bytes": counters.received_bytes,
        "sent_frames": counters.sent_frames,
        "sent_bytes": counters.sent_bytes,
        "dropped_receive": counters.dropped_receive,
        "dropped_send": counters.dropped_send,
        "resets": counters.resets,
    }


def _last(event: CheckpointCommitted | None, now: float) -> dict[str, Any]:
    """Give the last checkpoint that was committed, {} if there was none."""
    if event is None:
        return {}
    fields = event_fields(event)
    del fields["event"]
    return {"seconds_ago": now - event.at, **fields}


def _figures(figures: Figures | None) -> dict[str, Any]:
    if figures is None:
        return {}
    known = {"pause": figures.pause, "bytes": figures.bytes, "pages": figures.pages}
    return {name: value for name, value in known.items() if value is not None} | dict(figures.detail or {})
