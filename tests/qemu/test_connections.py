"""Connections of every kind and age, through checkpoints and through the death of the primary."""

import socket
from collections.abc import Callable

import dpkt
import pytest

from colo_compare.demo.proxy_process import Table
from colo_compare.demo.qemu.lab import CLIENT4, CLIENT6, GUEST4, GUEST6, Lab
from tests.qemu.client import CALL, ECHO, NAMES, STORE, Connection, ask_datagrams

TALK = b"are you there? " * 10
SYN = dpkt.tcp.TH_SYN
BY_FAMILY = pytest.mark.parametrize("host", [GUEST4, GUEST6], ids=["IPv4", "IPv6"])


@BY_FAMILY
def test_connections_of_every_age_outlive_checkpoints_and_the_primary(
    pair: Callable[..., Lab], host: str
) -> None:
    lab = pair()
    connections = [Connection(lab, ECHO, host) for _ in range(2)]  # opened before the checkpoint
    for _ in range(5):
        epoch = lab.ask_for_checkpoint()
        connections.append(Connection(lab, ECHO, host))  # its handshake meets the checkpoint
        lab.wait_for_epoch(epoch)
        connections.append(Connection(lab, ECHO, host))  # after it
        for connection in connections:
            assert connection.ask(TALK) == TALK
    connections.append(Connection(lab, ECHO, host))  # said nothing yet

    lab.machines[0].kill()

    for connection in connections:
        assert connection.ask(TALK) == TALK
        connection.close()
    with Connection(lab, ECHO, host) as later:
        assert later.ask(TALK) == TALK
    assert lab.counters()["promotions"] == 1


class TracingLab(Lab):
    """A lab whose proxy writes down what each guest sends."""

    def proxy_tables(self) -> dict[str, Table]:
        tables = super().proxy_tables()
        traced = {
            side: f"{tables['ports'][side]}?trace={self.directory}/{side}.pcapng"
            for side in ("primary", "secondary")
        }
        return tables | {"ports": {**tables["ports"], **traced}}


def test_a_connection_with_numbers_of_its_own_outlives_the_primary(pair: Callable[..., Lab]) -> None:
    """After the last checkpoint the two kernels chose different initial sequence numbers for it."""
    lab = pair(TracingLab)

    with Connection(lab, ECHO) as connection, Connection(lab, STORE) as store:
        assert connection.ask(TALK) == TALK
        assert store.line(b"SET city Ghent") == b"OK"
        lab.machines[0].kill()
        for _ in range(20):
            assert connection.ask(TALK) == TALK
        assert store.line(b"GET city") == b"Ghent"
        port = connection.socket.getsockname()[1]

    numbers = [initial_sequence_number(lab, side, port) for side in ("primary", "secondary")]
    assert numbers[0] != numbers[1]


def initial_sequence_number(lab: Lab, side: str, port: int) -> int:
    """Find a guest's SYN-ACK of the connection with this port of the client in what the guest sent."""
    with (lab.directory / f"{side}.pcapng").open("rb") as file:
        for _, data in dpkt.pcapng.Reader(file):
            segment = getattr(dpkt.ethernet.Ethernet(data).data, "data", None)  # not of what dpkt cannot read
            if (
                isinstance(segment, dpkt.tcp.TCP)
                and segment.dport == port
                and segment.flags & dpkt.tcp.TH_SYN
            ):
                return int(segment.seq)
    raise AssertionError(f"the {side} said no SYN-ACK to port {port}")


@pytest.mark.parametrize("source", [4444, 0], ids=["fixed port", "port of its choice"])
@pytest.mark.parametrize(("address", "host"), [(CLIENT4, GUEST4), (CLIENT6, GUEST6)], ids=["IPv4", "IPv6"])
def test_a_guest_calls_out(pair: Callable[..., Lab], address: str, host: str, source: int) -> None:
    lab = pair()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with lab.client.call(socket.socket, family) as listener, Connection(lab, CALL, host) as order:
        listener.settimeout(20)
        listener.bind((address, 5555))
        listener.listen()
        order.socket.sendall(f"{address} 5555 {source}\n".encode())
        called, peer = listener.accept()
        with called:
            called.settimeout(20)
            assert source in (0, peer[1])
            events: list[Callable[[], None]] = [lambda: None, lab.checkpoint, lab.machines[0].kill]
            for event in events:
                event()
                called.sendall(TALK)
                assert order.receive(len(TALK)) == TALK
                order.socket.sendall(TALK)
                assert called.recv(len(TALK), socket.MSG_WAITALL) == TALK
    assert lab.counters()["promotions"] == 1


@BY_FAMILY
def test_no_question_is_lost_at_a_checkpoint(pair: Callable[..., Lab], host: str) -> None:
    """Datagrams are never sent again, so each one that waits for a checkpoint must come out of it."""
    lab = pair()
    for number in range(20):
        epoch = lab.ask_for_checkpoint()
        questions = [b"%d.%d" % (number, each) * 50 for each in range(5)]
        assert ask_datagrams(lab, questions, host) == questions
        names = ask_datagrams(lab, questions, host, NAMES)
        assert [len(answer) for answer in names] == [192] * 5
        lab.wait_for_epoch(epoch)

    lab.machines[0].kill()
    lab.wait_for("end of the pair", lambda: lab.proxy.status()["mode"] == "solo")
    assert ask_datagrams(lab, [TALK] * 5, host) == [TALK] * 5
