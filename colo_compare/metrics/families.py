"""From a snapshot to metric families.

Every set of label values is closed and complete from the start, so that a series exists before it is needed
and `rate` sees its first step. No label holds an address, a port number or a flow: their number would have no
bound.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.samples import Exemplar

from colo_compare.core.counters import CLIENT_DISCARDS, PRIMARY_DISCARDS, REQUEST_REASONS, TIMEOUT
from colo_compare.core.epochs import COMPARING, PAUSED, REQUESTED
from colo_compare.core.settings import MODES
from colo_compare.core.sides import SIDE_NAMES
from colo_compare.metrics.snapshot import Buckets, PortFigures, Snapshot
from colo_compare.wire.frame import OPAQUE_REASONS

ROLES: Final = (*SIDE_NAMES, "lost")
DIVERGENCES: Final = REQUEST_REASONS[: REQUEST_REASONS.index(TIMEOUT) + 1]  # the first group


def families(now: Snapshot) -> Iterator[Metric]:
    """Give all families of one loop, one by one: each is made when it is asked for."""
    yield from _state(now)
    yield from _frames(now)
    yield from _held(now)
    yield from _checkpoints(now)
    yield from _failovers(now)
    yield from _flows(now)
    yield from _rewriter(now)
    yield from _ports(now.ports)
    yield _counters("colo_captures", "Capture files about divergences, by outcome.", "outcome", now.captures)
    yield _histogram(
        "colo_loop_lag_seconds", "How much later than it should a task of the loop ran.", now.lag
    )


def _state(now: Snapshot) -> Iterator[Metric]:
    yield _states("colo_mode", "The mode that is in force (1), and all others (0).", "mode", MODES, now.mode)
    yield _gauge(
        "colo_protected",
        "Whether a committed checkpoint stands behind the pair, in mode protect.",
        now.protected,
    )


def _frames(now: Snapshot) -> Iterator[Metric]:
    counters = now.counters
    yield _counters("colo_received_frames", "Frames that each side sent.", "side", counters["received"])
    yield _counters("colo_received_bytes", "Bytes of these frames.", "side", counters["received_bytes"])
    yield _counters(
        "colo_parsed_frames", "Frames of all sides by what they carry.", "kind", counters["kinds"]
    )
    yield _counters(
        "colo_opaque_frames",
        "Frames that are not IP, or not well-formed, by reason.",
        "reason",
        {reason: counters["opaque"].get(reason, 0) for reason in OPAQUE_REASONS if reason},
    )
    yield _counters(
        "colo_released_frames",
        "Primary frames that went out, by why they could.",
        "kind",
        counters["released"],
    )
    yield _counter("colo_released_bytes", "Bytes of released frames.", counters["released_bytes"])
    yield _discards(counters["discarded"], counters["client_discarded"])
    yield _counters(
        "colo_secondary_frames", "Secondary frames by what became of them.", "fate", counters["secondary"]
    )
    yield _counter("colo_compared_bytes", "Payload bytes that both guests said.", counters["compared_bytes"])
    yield _divergences(counters["divergences"], now.last_divergences)


def _discards(primary: Mapping[str, int], client: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(
        "colo_discarded_frames",
        "Frames that reached nobody, or not both guests, by side and reason.",
        labels=["side", "reason"],
    )
    for reason in PRIMARY_DISCARDS:
        family.add_metric(["primary", reason], primary[reason])
    for reason in CLIENT_DISCARDS:
        family.add_metric(["client", reason], client[reason])
    return family


def _divergences(counts: Mapping[str, int], last: Mapping[str, tuple[int, float]]) -> Metric:
    """Give the divergences; as an exemplar the id of the last one, which the log and `status` know too."""
    family = CounterMetricFamily(
        "colo_divergences", "How often the secondary said something else, by what.", labels=["reason"]
    )
    for reason in DIVERGENCES:
        exemplar = None
        if reason in last:
            number, at = last[reason]
            exemplar = Exemplar({"divergence_id": str(number)}, 1.0, at)
        family.add_metric([reason], counts[reason], exemplar=exemplar)
    return family


def _held(now: Snapshot) -> Iterator[Metric]:
    yield _histogram("colo_hold_seconds", "How long released frames had been held.", now.hold)
    yield _gauge("colo_held_frames", "Primary frames that wait for the secondary.", now.held_frames)
    yield _gauge("colo_held_bytes", "Bytes of the held frames.", now.held_bytes)
    yield _gauge("colo_held_oldest_seconds", "Age of the oldest held frame, 0 without one.", now.held_oldest)
    yield _gauge(
        "colo_held_frames_limit",
        "Held frames at which the primary is no longer read.",
        now.limits["held_frames"],
    )
    yield _gauge(
        "colo_held_bytes_limit",
        "Held bytes at which the primary is no longer read.",
        now.limits["held_bytes"],
    )
    yield _gauge(
        "colo_client_waiting_frames",
        "Client frames that wait for a checkpoint to be over.",
        now.client_waiting,
    )


def _checkpoints(now: Snapshot) -> Iterator[Metric]:
    counters = now.counters
    yield _counters(
        "colo_checkpoint_requests",
        "Reasons for which checkpoints were asked for.",
        "reason",
        counters["requests"],
    )
    yield _counters("colo_checkpoints", "Checkpoints by outcome.", "outcome", counters["checkpoints"])
    yield _states(
        "colo_checkpoint_state",
        "What a checkpoint has come to (1), and all other states (0).",
        "state",
        (COMPARING, REQUESTED, PAUSED),
        now.checkpoint_state,
    )
    yield _gauge(
        "colo_checkpoint_running_seconds",
        "Time since the request of the checkpoint under way, 0 without one.",
        now.checkpoint_running,
    )
    yield _gauge("colo_epoch", "Epoch that runs; 0 before the first commit.", now.epoch)
    family = GaugeMetricFamily(
        "colo_last_commit_timestamp_seconds", "Unix time of the last commit; no sample before the first."
    )
    if now.last_commit is not None:
        family.add_metric([], now.last_commit)
    yield family
    yield _histogram(
        "colo_checkpoint_commit_seconds",
        "Time from a checkpoint's request to its commit.",
        now.request_to_commit,
    )
    yield _histogram("colo_checkpoint_pause_seconds", "Time that the primary stood still for it.", now.pause)
    yield _counter("colo_checkpoint_pages", "Pages that the checkpointer says it copied.", now.pages)
    yield _counter("colo_checkpoint_bytes", "Bytes that the checkpointer says it copied.", now.bytes)
    yield _gauge(
        "colo_checkpointer_ready",
        "Whether the checkpointer is connected to what it needs.",
        now.checkpointer_ready,
    )


def _failovers(now: Snapshot) -> Iterator[Metric]:
    yield _counter("colo_failovers", "How often the secondary took over.", now.counters["promotions"])
    yield _counter(
        "colo_secondaries_lost", "How often the secondary was lost.", now.counters["secondaries_lost"]
    )
    yield _counter(
        "colo_secondaries_joined", "How often a guest that ran alone got a new secondary.", now.joined
    )
    yield _histogram(
        "colo_failover_seconds",
        "Time from the first word that the primary is gone, or a command, until the secondary serves.",
        now.failover,
    )


def _flows(now: Snapshot) -> Iterator[Metric]:
    counters = now.counters
    yield _gauges("colo_flows", "Flows in the tables by state.", "state", now.flows)
    yield _gauge("colo_flows_limit", "Flows for which there is room.", now.limits["flows"])
    yield _counter("colo_flows_opened", "Flows that entered the tables.", counters["flows_opened"])
    yield _counter("colo_flows_evicted", "Flows that were forgotten.", counters["flows_evicted"])


def _rewriter(now: Snapshot) -> Iterator[Metric]:
    counters = now.counters
    yield _counter(
        "colo_rewritten_frames", "Frames whose numbers or timestamps were translated.", counters["rewritten"]
    )
    yield _counter(
        "colo_clamped_frames",
        "Released frames whose window was reduced to the secondary's.",
        counters["clamped"],
    )
    yield _counter(
        "colo_window_updates", "Own acknowledgements that open a reduced window.", counters["window_updates"]
    )
    yield _counter(
        "colo_split_frames", "First parts of primary frames that went out before the rest.", counters["split"]
    )
    yield _counter(
        "colo_overtaking_frames",
        "Primary frames that went out before older ones of their flow.",
        counters["overtaking"],
    )
    yield _counter(
        "colo_neighbour_answers",
        "Answers of the proxy itself to the secondary's address resolution.",
        counters["neighbour_answers"],
    )
    yield _counter("colo_mirrored_frames", "Client frames sent to the secondary.", counters["mirrored"])
    yield _counter(
        "colo_mirrored_again_frames",
        "Of these, repetitions of what the secondary had not acknowledged.",
        counters["mirrored_again"],
    )
    yield _counter(
        "colo_reported_holes",
        "Own acknowledgements to the secondary which tell that frames of it were lost on their way here.",
        counters["holes_reported"],
    )


def _ports(ports: Mapping[str, PortFigures]) -> Iterator[Metric]:
    yield _gauges(
        "colo_port_connected",
        "Whether frames can flow through the port.",
        "port",
        {name: port.connected for name, port in ports.items()},
    )
    roles = GaugeMetricFamily(
        "colo_port_role",
        "The role of the guest behind the port (1), and all others (0).",
        labels=["port", "role"],
    )
    for name, port in ports.items():
        for role in ROLES:
            roles.add_metric([name, role], float(port.role == role))
    yield roles
    yield _by_port(
        "colo_port_frames", "Frames through the port.", "direction", {n: p.frames for n, p in ports.items()}
    )
    yield _by_port(
        "colo_port_bytes", "Bytes through the port.", "direction", {n: p.bytes for n, p in ports.items()}
    )
    yield _by_port(
        "colo_port_dropped_frames",
        "Frames that the port lost, by where.",
        "where",
        {name: port.dropped for name, port in ports.items()},
    )
    yield _counters(
        "colo_port_resets",
        "Links that broke and were made anew.",
        "port",
        {n: p.resets for n, p in ports.items()},
    )
    yield _gauges(
        "colo_port_backlog_frames",
        "Frames that the port has not taken yet.",
        "port",
        {name: port.backlog for name, port in ports.items()},
    )
    yield _counters(
        "colo_port_backpressure_seconds",
        "Time for which the port was not read, so that its sender waits.",
        "port",
        {name: port.backpressure for name, port in ports.items()},
    )


def _by_port(name: str, text: str, label: str, ports: Mapping[str, Mapping[str, int]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=["port", label])
    for port, values in ports.items():
        for key, value in values.items():
            family.add_metric([port, key], value)
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _states(name: str, text: str, label: str, known: Iterable[str], current: str) -> Metric:
    return _gauges(name, text, label, {state: float(state == current) for state in known})


def _histogram(name: str, text: str, buckets: Buckets) -> Metric:
    bounds = [*map(str, buckets.bounds), "+Inf"]
    cumulative = list(zip(bounds, accumulate(buckets.counts), strict=True))
    return HistogramMetricFamily(name, text, buckets=cumulative, sum_value=buckets.sum)
