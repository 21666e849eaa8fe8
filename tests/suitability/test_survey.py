import pytest

from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.operate import causes
from colo_compare.suitability import survey as module
from colo_compare.suitability.survey import (
    PARTS,
    REST,
    WORST,
    Hold,
    Service,
    Survey,
    Surveyor,
    peers,
    service_name,
)
from colo_compare.wire.frame import parse_frame
from tests.conversation import Clock, Conversation, Packet
from tests.suitability.facts import FLOW, record

BEGAN = 100.0
NO_HOLD = Hold([], [0])


class Case:
    """A surveyor from 100 s on, which takes a checkpoint to last 50 ms."""

    def __init__(self) -> None:
        self.surveyor = Surveyor(0.05, BEGAN, 60.0)
        self.talk = Conversation(Clock(1000.0))

    def see(self, side: int, *packets: Packet) -> None:
        self.surveyor.see(side, [parse_frame(p.data, 0, side == CLIENT) for p in packets])

    def result(self) -> Survey:
        return self.surveyor.result(60.0, 10, NO_HOLD)

    def service(self) -> Service:
        (service,) = self.result().services
        return service


@pytest.mark.parametrize(
    ("flow", "name"),
    [
        (FLOW, "tcp 80"),
        ("udp 10.0.0.2:53 - 10.0.0.1:53", "udp 53"),
        ("tcp [fd77::2]:443 - [fd77::1]:40000", "tcp 443"),
        ("tcp 10.0.0.2:40000 - 10.0.0.9:5432", "to tcp 5432"),
        ("tcp 10.0.0.2:40000 - 10.0.0.9:50000", "tcp 40000"),
        ("tcp 10.0.0.2:80 - 10.0.0.1:40000 vlan 5", "tcp 80"),
        ("icmp 10.0.0.2 - 10.0.0.1 id 7", "icmp"),
        ("ip protocol 47 10.0.0.2 - 10.0.0.1", "ip protocol 47 10.0.0.2"),
        ("fragment of udp 10.0.0.2 - 10.0.0.1", "fragment of udp 10.0.0.2"),
        ("(no flow)", "(no flow)"),
    ],
)
def test_the_service_of_a_flow(flow: str, name: str) -> None:
    assert service_name(flow) == name


@pytest.mark.parametrize(
    ("flow", "both"),
    [
        (FLOW, "tcp 10.0.0.2:80 - 10.0.0.1"),
        ("tcp [fd77::2]:443 - [fd77::1]:40000 vlan 5", "tcp [fd77::2]:443 - [fd77::1] vlan 5"),
        ("tcp 10.0.0.2:40000 - 10.0.0.9:5432", "tcp 10.0.0.2 - 10.0.0.9:5432"),
        ("icmp 10.0.0.2 - 10.0.0.1 id 7", "icmp 10.0.0.2 - 10.0.0.1 id 7"),
    ],
)
def test_the_two_ends_of_a_flow(flow: str, both: str) -> None:
    assert peers(flow) == both


def test_the_connections_of_one_client_count_as_one() -> None:
    case = Case()
    for port in range(3):
        case.surveyor.diverge(record(f"tcp 10.0.0.2:80 - 10.0.0.1:4000{port}"), BEGAN + port)
    (flow,) = case.result().flows
    assert flow.divergences == 3


def test_a_request_is_a_turn_of_the_client() -> None:
    case = Case()
    client, primary = case.talk.client, case.talk.primary
    case.see(CLIENT, client.data(b"GET "), client.data(b"/ HTTP/1.1"))
    case.see(PRIMARY, primary.data(b"200 OK"), primary.data(b"body"))
    case.see(CLIENT, client.ack())
    case.see(CLIENT, client.data(b"GET /more"))
    service = case.service()
    assert (service.name, service.requests) == (f"tcp {case.talk.guest_port}", 2)
    assert (service.client_bytes, service.primary_bytes) == (23, 10)


def test_each_datagram_of_the_client_is_a_request() -> None:
    case = Case()
    case.see(CLIENT, case.talk.client.datagram(b"one"), case.talk.client.datagram(b"two"))
    case.see(PRIMARY, case.talk.primary.datagram(b"answer"))
    service = case.service()
    assert (service.name, service.requests) == (f"udp {case.talk.guest_port}", 2)


def test_what_the_secondary_says_is_only_counted() -> None:
    case = Case()
    case.see(SECONDARY, case.talk.secondary.datagram(b"answer"))
    assert case.result().services == []
    assert case.result().frames == [0, 0, 1]


def test_what_carries_nothing_is_no_request() -> None:
    case = Case()
    case.see(CLIENT, case.talk.client.ack())
    assert case.result().services == []


def test_a_divergence_asks_for_a_checkpoint_and_others_share_it() -> None:
    case = Case()
    for n in range(3):
        case.surveyor.diverge(record(f"udp 10.0.0.2:53 - 10.0.0.1:{40000 + n}"), BEGAN + n * 0.02)
    found = case.result()
    assert (found.divergences, found.checkpoints) == (3, 1)
    case.surveyor.diverge(record("udp 10.0.0.2:53 - 10.0.0.1:40003"), BEGAN + 0.05)
    assert case.result().checkpoints == 2


def test_one_flow_does_not_share_with_itself() -> None:
    """In protect mode its client goes on after the commit: the second one then costs another."""
    case = Case()
    case.surveyor.diverge(record(), BEGAN)
    case.surveyor.diverge(record(), BEGAN + 0.01)
    assert case.result().checkpoints == 2


def test_when_they_came() -> None:
    case = Case()
    for at in (0.0, 1.5, 59.9, 60.5):
        case.surveyor.diverge(record(), BEGAN + at)
    parts = case.result().parts
    assert len(parts) == PARTS
    assert (parts[0], parts[1], parts[59], sum(parts)) == (1, 1, 2, 4)


@pytest.mark.parametrize(
    ("cause", "text"),
    [(causes.LENGTH, "x"), (causes.ONE_SIDE, "x"), (causes.OPTIONS, "x"), (causes.RANDOM, causes.TLS)],
)
def test_after_some_the_rest_of_the_connection_is_an_echo(cause: str, text: str) -> None:
    case = Case()
    for at in range(3):
        case.surveyor.diverge(record(cause=cause, text=text), BEGAN + at)
    found = case.result()
    assert (found.divergences, found.echoes, found.checkpoints) == (3, 2, 1)
    assert (found.flows[0].divergences, found.flows[0].echoes) == (1, 2)


@pytest.mark.parametrize(
    ("flow", "cause"),
    [(FLOW, causes.TIMESTAMP), (FLOW, causes.RANDOM), ("udp 10.0.0.2:53 - 10.0.0.1:9", causes.ONE_SIDE)],
)
def test_after_others_the_guests_go_on_alike(flow: str, cause: str) -> None:
    case = Case()
    for at in range(3):
        case.surveyor.diverge(record(flow, cause=cause), BEGAN + at)
    assert (case.result().echoes, case.result().checkpoints) == (0, 3)


def test_patterns_and_flows_come_with_the_worst_first() -> None:
    case = Case()
    for n in range(WORST + 5):
        for at in range(n + 1):
            flow = f"tcp 10.0.0.2:{80 + n} - 10.0.0.1:40000"
            case.surveyor.diverge(record(flow, causes.NUMBER, f"X-{n}"), BEGAN + at)
    found = case.result()
    assert len(found.flows) == WORST
    assert found.flows[0].flow == "tcp 10.0.0.2:94 - 10.0.0.1"
    assert found.flows[0].fields == ["X-14"]
    assert found.patterns[0].field == "X-14"
    assert found.patterns[0].divergences == 15


def test_nothing_grows_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in (("MOST_SERVICES", 3), ("MOST_PATTERNS", 2), ("MOST_FLOWS", 4)):
        monkeypatch.setattr(module, name, most)
    case = Case()
    for n in range(10):
        flow = f"tcp 10.0.0.2:{80 + n} - 10.0.0.1:40000"
        case.surveyor.diverge(record(flow, causes.LENGTH, f"X-{n}"), BEGAN + n)
    found = case.result()
    assert sorted(service.name for service in found.services) == [REST, "tcp 80", "tcp 81", "tcp 82"]
    assert {pattern.service for pattern in found.patterns} == {"tcp 80", "tcp 81", REST}
    assert sum(pattern.divergences for pattern in found.patterns) == 10
    assert len(found.flows) == 4
