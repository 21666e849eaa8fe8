"""What a workload does while two guests are compared, counted: the facts that a verdict is made of.

Fed with frames and divergences of a loop in mode observe, or of two captures. Everything is bounded:
services, patterns and flows, and where there are too many of them the rest is counted as one.

Two things make it more than a sum of divergences:

- In observe mode nothing makes the guests equal again, so a connection in which they have parted for good
  goes on to diverge: keys of a TLS handshake, a stream that is longer on one side. Behind a checkpoint that
  would not be so. Such later divergences of the connection are *echoes*, and ask for no checkpoint.
- A checkpoint takes a while, and divergences of other flows meanwhile share it. Of the same flow there would
  be none: it releases nothing before the commit, so its client would not have asked for more yet.
"""

from typing import Final, TypeVar

import msgspec

from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.operate import causes
from colo_compare.operate.divergences import Record
from colo_compare.wire.describe import describe_flow
from colo_compare.wire.frame import ICMP, OTHER_IP, TCP, UDP, Frame

MOST_SERVICES: Final = 256
MOST_PATTERNS: Final = 256
MOST_FLOWS: Final = 65536
WORST: Final = 10  # flows that a survey names
PARTS: Final = 60  # of its time, for the plot
REST: Final = "all others"

# After these the two streams of a connection stay apart until a checkpoint. Where what differs has the same
# length (a time, a number), the guests go on alike.
_LASTING: Final = frozenset(
    {causes.LENGTH, causes.ONE_SIDE, causes.ENDING, causes.OPTIONS, causes.MID_STREAM}
)
_EPHEMERAL: Final = 32768  # ports from here on are a client's own, mostly (RFC 6056; Linux's default)

K = TypeVar("K")
V = TypeVar("V")


class Service(msgspec.Struct):
    """What a guest serves on one port, or asks of others."""

    name: str
    requests: int = 0  # turns of the client: its data after the guest's, or its datagrams
    client_bytes: int = 0  # payload
    primary_bytes: int = 0
    divergences: int = 0  # without echoes
    checkpoints: int = 0  # of these, those that would have asked first


class Pattern(msgspec.Struct):
    """Divergences of one service that look the same."""

    service: str
    reason: str
    cause: str
    field: str  # the name before what differs, "" where there is none
    text: str
    divergences: int = 0
    checkpoints: int = 0


class FlowCount(msgspec.Struct):
    """How often the flows between a service and one client diverged."""

    flow: str  # without the client's port, which is another one for each connection
    divergences: int
    echoes: int
    fields: list[str]


class Hold(msgspec.Struct):
    """How long frames of the primary would have waited."""

    bounds: list[float]  # seconds
    counts: list[int]  # one for each bound, and one more


class Survey(msgspec.Struct):
    """The facts."""

    seconds: float
    checkpoint_time: float  # seconds that a checkpoint was taken to last
    frames: list[int]  # by side
    compared: int  # primary frames of these that wait for the secondary where one protects
    hold: Hold
    services: list[Service]
    patterns: list[Pattern]
    flows: list[FlowCount]
    divergences: int  # all of them
    echoes: int
    checkpoints: int
    parts: list[int]  # checkpoints in each of PARTS equal spans


class Surveyor:
    """Makes a survey."""

    def __init__(self, checkpoint_time: float, began: float, expected: float) -> None:
        """Take how long a checkpoint is taken to last, when the survey begins, and how long it will be.

        Seconds; the beginning by the clock of the times that `diverge` is given.
        """
        self._checkpoint_time = checkpoint_time
        self._began = began
        self._part = expected / PARTS
        self._frames = [0, 0, 0]
        self._services: dict[str, Service] = {}
        self._patterns: dict[tuple[str, ...], Pattern] = {}
        self._turns: dict[bytes, bool] = {}  # flow: whether the client has spoken last
        self._by_key: dict[bytes, Service] = {}
        self._flows: dict[str, FlowCount] = {}
        self._parted: dict[str, None] = {}  # flows in which the guests have parted for good
        self._divergences = 0
        self._echoes = 0
        self._checkpoints = 0
        self._busy_until = began
        self._sharing: set[str] = set()  # flows that have asked for the checkpoint that would be under way
        self._parts = [0] * PARTS

    def see(self, side: int, frames: list[Frame]) -> None:
        """Look at frames that a side has sent."""
        self._frames[side] += len(frames)
        if side == SECONDARY:
            return
        for frame in frames:
            if frame.kind in (TCP, UDP, ICMP, OTHER_IP):
                self._count(side, frame)

    def _count(self, side: int, frame: Frame) -> None:
        length = frame.end - frame.payload
        if length <= 0:
            return
        key = frame.key
        service = self._by_key.get(key)
        if service is None:
            service = self._service(service_name(describe_flow(key)))
            _keep(self._by_key, key, service)
        if side == PRIMARY:
            service.primary_bytes += length
            if frame.kind == TCP:
                _keep(self._turns, key, False)
        else:
            assert side == CLIENT
            service.client_bytes += length
            if frame.kind != TCP:
                service.requests += 1
            elif not self._turns.get(key, False):
                service.requests += 1
                _keep(self._turns, key, True)

    def _service(self, name: str) -> Service:
        if name not in self._services and len(self._services) >= MOST_SERVICES:
            name = REST
        return self._services.setdefault(name, Service(name))

    def diverge(self, record: Record, now: float) -> None:
        """Take one divergence, which happens now."""
        self._divergences += 1
        between = peers(record.flow)
        flow = self._flows.get(between)
        if flow is None:
            flow = FlowCount(between, 0, 0, [])
            _keep(self._flows, between, flow)
        if record.flow in self._parted:
            self._echoes += 1
            flow.echoes += 1
            return
        cause = record.cause
        if record.flow.startswith("tcp ") and (cause.kind in _LASTING or cause.text == causes.TLS):
            _keep(self._parted, record.flow, None)
        flow.divergences += 1
        name = cause.field or cause.kind
        if name not in flow.fields and len(flow.fields) < WORST:
            flow.fields.append(name)
        service = self._service(service_name(record.flow))
        pattern = self._pattern(service.name, record)
        service.divergences += 1
        pattern.divergences += 1
        if now >= self._busy_until or record.flow in self._sharing:
            self._busy_until = now + self._checkpoint_time
            self._sharing.clear()
            self._checkpoints += 1
            service.checkpoints += 1
            pattern.checkpoints += 1
            self._parts[min(int((now - self._began) / self._part), PARTS - 1)] += 1
        self._sharing.add(record.flow)

    def _pattern(self, service: str, record: Record) -> Pattern:
        cause = record.cause
        key = (service, record.reason, cause.kind, cause.field)
        if key not in self._patterns and len(self._patterns) >= MOST_PATTERNS:
            return self._patterns.setdefault((REST, "", "", ""), Pattern(REST, "", "", "", ""))
        return self._patterns.setdefault(
            key, Pattern(service, record.reason, cause.kind, cause.field, cause.text)
        )

    def result(self, seconds: float, compared: int, hold: Hold) -> Survey:
        """Give the survey: how long it was, what was compared, and how long that would have waited."""
        worst = sorted(self._flows.values(), key=lambda flow: (-flow.divergences, -flow.echoes))
        return Survey(
            seconds=seconds,
            checkpoint_time=self._checkpoint_time,
            frames=list(self._frames),
            compared=compared,
            hold=hold,
            services=sorted(self._services.values(), key=lambda one: (-one.checkpoints, -one.requests)),
            patterns=sorted(self._patterns.values(), key=lambda one: (-one.checkpoints, -one.divergences)),
            flows=[flow for flow in worst if flow.divergences][:WORST],
            divergences=self._divergences,
            echoes=self._echoes,
            checkpoints=self._checkpoints,
            parts=list(self._parts),
        )


def service_name(flow: str) -> str:
    """Give the service of a flow in words: ``tcp 80``, ``to tcp 5432`` where the guest asks, ``icmp``.

    Which end serves is told by the port numbers: a port below 32768 is a service.
    """
    protocol, _, ends = flow.partition(" ")
    near, _, far = ends.partition(" - ")
    if protocol not in ("tcp", "udp"):
        return protocol if protocol.startswith("icmp") else flow.partition(" - ")[0]
    near_port, far_port = _port(near), _port(far)
    if near_port >= _EPHEMERAL > far_port:
        return f"to {protocol} {far_port}"
    return f"{protocol} {near_port}"


def peers(flow: str) -> str:
    """Give a flow without the port of the client's end: ``tcp 10.0.0.2:80 - 10.0.0.1``."""
    protocol, _, ends = flow.partition(" ")
    near, _, far = ends.partition(" - ")
    if protocol not in ("tcp", "udp"):
        return flow
    if _port(near) >= _EPHEMERAL > _port(far):
        return f"{protocol} {_without_port(near)} - {far}"
    return f"{protocol} {near} - {_without_port(far)}"


def _without_port(end: str) -> str:
    address, vlan, number = end.partition(" vlan ")
    return address.rpartition(":")[0] + vlan + number


def _port(end: str) -> int:
    return int(end.partition(" vlan ")[0].rpartition(":")[2])


def _keep(table: dict[K, V], key: K, value: V) -> None:
    """Note something, and forget the oldest where there is no room."""
    if key not in table and len(table) >= MOST_FLOWS:
        del table[next(iter(table))]
    table[key] = value
