"""Pings, datagrams, and what the guest does not answer."""

import pytest

from colo_compare.guest import Machine
from tests.frames import (
    CLIENT_IP4,
    CLIENT_IP6,
    CLIENT_MAC,
    GUEST_IP4,
    GUEST_IP6,
    GUEST_MAC,
    ethernet,
    icmp_message,
    ipv4,
    udp_datagram,
)
from tests.guest.peer import arp_message, new_machine, packet, solicit, take_apart

ENDS = {4: (CLIENT_IP4, GUEST_IP4), 6: (CLIENT_IP6, GUEST_IP6)}


@pytest.fixture
def machine() -> Machine:
    """A guest that knows the client."""
    machine = new_machine()
    machine.receive([arp_message(1), solicit()], 1.0)
    return machine


def udp(version: int, port: int, payload: bytes, with_checksum: bool = True) -> bytes:
    source, target = ENDS[version]
    return packet(17, udp_datagram(source, target, 5000, port, payload, with_checksum), version)


@pytest.mark.parametrize(("version", "request_kind", "answer_kind"), [(4, 8, 0), (6, 128, 129)])
def test_a_ping_is_answered(machine: Machine, version: int, request_kind: int, answer_kind: int) -> None:
    source, target = ENDS[version]
    message = icmp_message(source, target, request_kind, 0, b"\x12\x34\0\1", b"hello")
    (answer,) = take_apart(machine.receive([packet(1 if version == 4 else 58, message, version)], 1.0))
    assert (answer.source, answer.target, answer.target_mac) == (target, source, CLIENT_MAC)
    start = 34 if version == 4 else 54
    assert answer.data[start] == answer_kind
    assert answer.data[start + 4 :] == message[4:]
    other = icmp_message(source, target, answer_kind, 0, b"\x12\x34\0\1", b"hello")
    assert machine.receive([packet(1 if version == 4 else 58, other, version)], 1.0) == []


@pytest.mark.parametrize("version", [4, 6])
def test_a_datagram_is_echoed(machine: Machine, version: int) -> None:
    for payload in (b"", b"odd", bytes(1400)):
        (answer,) = take_apart(machine.receive([udp(version, 7, payload)], 1.0))
        assert (answer.source_port, answer.target_port, answer.payload) == (7, 5000, payload)
    assert machine.header.datagrams == 3


def test_a_datagram_without_a_checksum_is_echoed_over_ipv4_only(machine: Machine) -> None:
    assert len(machine.receive([udp(4, 7, b"x", with_checksum=False)], 1.0)) == 1
    assert machine.receive([udp(6, 7, b"x", with_checksum=False)], 1.0) == []
    assert machine.header.damaged == 1


@pytest.mark.parametrize("version", [4, 6])
def test_where_nothing_listens_the_client_is_told_so_often_a_second(machine: Machine, version: int) -> None:
    frame = udp(version, 99, b"anyone?")
    answers = machine.receive([frame] * 150, 1.0)
    assert len(answers) == 100
    (answer,) = take_apart(machine.receive([frame], 2.0))
    start = 34 if version == 4 else 54
    assert answer.data[start : start + 2] == (b"\x03\x03" if version == 4 else b"\x01\x04")
    assert answer.data[start + 8 :] == frame[14 : 14 + len(answer.data) - start - 8]


def test_an_echo_that_is_too_long_for_the_network_is_dropped() -> None:
    machine = new_machine()
    machine.receive([arp_message(1)], 1.0)
    assert machine.receive([udp(4, 7, bytes(1472))], 1.0) != []
    assert machine.receive([udp(4, 7, bytes(1473))], 1.0) == []


@pytest.mark.parametrize(
    "frame",
    [
        ethernet(b"x" * 46, 0x88B5, CLIENT_MAC, GUEST_MAC),
        ethernet(udp(4, 7, b"x")[14:], 0x0800, CLIENT_MAC, bytes.fromhex("020000000009")),
        ethernet(udp(4, 7, b"x")[14:], 0x0800, CLIENT_MAC, GUEST_MAC, vlans=(5,)),
        ethernet(
            ipv4(udp_datagram(CLIENT_IP4, CLIENT_IP4, 1, 7, b"x"), 17, CLIENT_IP4, CLIENT_IP4, 1),
            0x0800, CLIENT_MAC, GUEST_MAC,
        ),
        packet(132, b"sctp", 4),
        ethernet(ipv4(bytes(8), 17, CLIENT_IP4, GUEST_IP4, 1, more=True), 0x0800, CLIENT_MAC, GUEST_MAC),
    ],
    ids=["type", "mac", "vlan", "address", "protocol", "fragment"],
)  # fmt: skip
def test_what_is_not_for_the_guest_is_counted(machine: Machine, frame: bytes) -> None:
    before = machine.header.foreign
    assert machine.receive([frame], 1.0) == []
    assert machine.header.foreign == before + 1


def test_what_is_too_short_is_counted(machine: Machine) -> None:
    assert machine.receive([GUEST_MAC, packet(17, b"x"), packet(6, b"x")], 1.0) == []
    assert machine.header.damaged == 3
