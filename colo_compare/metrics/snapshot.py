"""What a scrape needs of a loop, copied at one moment. This is all that a scrape does on the loop itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trio

from colo_compare.core.histogram import Histogram
from colo_compare.link import LOST, Link
from colo_compare.loop import Loop


@dataclass(frozen=True)
class Buckets:
    """A copy of a histogram."""

    bounds: list[float]  # seconds; shared, as they never change
    counts: list[int]  # one for each bound, and one more
    sum: float  # seconds

    @classmethod
    def of(cls, histogram: Histogram) -> "Buckets":
        """Copy one."""
        return cls(histogram.bounds, list(histogram.counts), histogram.sum)


@dataclass(frozen=True)
class PortFigures:
    """One port, by its name in the configuration."""

    role: str
    connected: bool
    frames: Mapping[str, int]  # received, sent
    bytes: Mapping[str, int]  # received, sent
    dropped: Mapping[str, int]  # by where: receive, send, backlog
    resets: int
    backlog: int  # frames
    backpressure: float  # seconds


@dataclass(frozen=True)
class Snapshot:
    """One moment of one loop."""

    mode: str
    protected: bool
    epoch: int
    checkpoint_state: str
    checkpoint_running: float  # seconds
    last_commit: float | None  # Unix time
    counters: Mapping[str, Any]  # core.counters.Counters.snapshot()
    last_divergences: Mapping[str, tuple[int, float]]  # reason: id, Unix time
    held_frames: int
    held_bytes: int
    held_oldest: float  # seconds
    client_waiting: int  # frames
    flows: Mapping[str, int]  # by state
    limits: Mapping[str, int]  # of held_frames, held_bytes and flows
    hold: Buckets
    request_to_commit: Buckets
    pause: Buckets
    failover: Buckets
    lag: Buckets
    pages: int
    bytes: int
    joined: int  # new secondaries
    checkpointer_ready: bool
    ports: Mapping[str, PortFigures]
    captures: Mapping[str, int]  # by outcome


def take_snapshot(loop: Loop) -> Snapshot:
    """Copy what a scrape shows. Without an await: nothing changes while it does."""
    proxy, measures, settings = loop.proxy, loop.measures, loop.settings
    now = trio.current_time()
    checkpointing = loop.checkpointing
    counters = proxy.counters
    return Snapshot(
        mode=proxy.mode,
        protected=proxy.protected,
        epoch=proxy.epoch,
        checkpoint_state=proxy.checkpoint_state,
        checkpoint_running=measures.checkpoint_running(now),
        last_commit=measures.last_commit,
        counters=counters.snapshot(),
        last_divergences=dict(measures.last_divergences),
        held_frames=proxy.held_frames,
        held_bytes=proxy.held_bytes,
        held_oldest=proxy.oldest_held(now),
        client_waiting=proxy.client_waiting,
        flows=proxy.flows(),
        limits={
            "held_frames": settings.max_held_frames,
            "held_bytes": settings.max_held_bytes,
            "flows": settings.max_flows,
        },
        hold=Buckets.of(counters.hold_time),
        request_to_commit=Buckets.of(measures.request_to_commit),
        pause=Buckets.of(measures.pause),
        failover=Buckets.of(measures.failover),
        lag=Buckets.of(measures.lag),
        pages=measures.pages,
        bytes=measures.bytes,
        joined=measures.joined,
        checkpointer_ready=checkpointing.checkpointer.ready and not checkpointing.ended,
        ports={link.name: _port(link) for link in loop.links},
        captures=dict(loop.frames.captures),
    )


def _port(link: Link) -> PortFigures:
    counters = link.port.counters
    return PortFigures(
        role=link.role_name,
        connected=link.role != LOST and link.port.connected,
        frames={"received": counters.received_frames, "sent": counters.sent_frames},
        bytes={"received": counters.received_bytes, "sent": counters.sent_bytes},
        dropped={
            "receive": counters.dropped_receive,
            "send": counters.dropped_send,
            "backlog": link.dropped,
        },
        resets=counters.resets,
        backlog=len(link.backlog),
        backpressure=link.seconds_at_gate(),
    )
