"""ARP and neighbour discovery that arrive."""

import struct

from tests.frames import (
    CLIENT_IP4,
    CLIENT_IP6,
    CLIENT_MAC,
    GUEST_IP4,
    GUEST_IP6,
    GUEST_MAC,
    ethernet,
    icmp_message,
    ipv6,
)
from tests.guest.peer import arp_message, new_machine, solicit, take_apart

ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")


def test_an_arp_request_is_answered() -> None:
    machine = new_machine()
    (answer,) = machine.receive([arp_message(1)], 1.0)
    assert answer[:14] == CLIENT_MAC + GUEST_MAC + b"\x08\x06"
    assert (
        answer[14:]
        == struct.pack(">HHBBH", 1, 0x0800, 6, 4, 2) + GUEST_MAC + GUEST_IP4 + CLIENT_MAC + CLIENT_IP4
    )


def test_a_probe_for_our_address_is_answered_and_teaches_nothing() -> None:
    machine = new_machine()
    (answer,) = machine.receive([arp_message(1, sender_ip=bytes(4))], 1.0)
    assert answer[20:22] == b"\x00\x02"
    assert machine.call("10.0.0.1", 1, 1, 1.0)[0][12:14] == b"\x08\x06"


def test_a_request_for_someone_else_is_not_answered() -> None:
    assert new_machine().receive([arp_message(1, bytes((10, 0, 0, 9)))], 1.0) == []


def test_who_claims_our_address_is_not_heard() -> None:
    assert new_machine().receive([arp_message(1, CLIENT_IP4, GUEST_IP4)], 1.0) == []


def test_a_malformed_arp_message_is_counted() -> None:
    machine = new_machine()
    assert machine.receive([arp_message(1)[:30]], 1.0) == []
    assert machine.header.damaged == 1


def test_a_solicitation_is_answered() -> None:
    (answer,) = take_apart(new_machine().receive([solicit()], 1.0))
    assert (answer.source, answer.target, answer.target_mac) == (GUEST_IP6, CLIENT_IP6, CLIENT_MAC)
    message = answer.data[54:]
    assert message[0] == 136
    assert message[4:] == b"\x60\0\0\0" + GUEST_IP6 + b"\x02\x01" + GUEST_MAC


def test_the_link_local_address_is_answered_for_too() -> None:
    address = bytes.fromhex("fe80000000000000005000fffe000002")
    frame = solicit(target=address)
    (answer,) = take_apart(new_machine().receive([frame], 1.0))
    assert answer.source == address


def test_a_solicitation_for_duplicates_is_answered_to_all() -> None:
    (answer,) = take_apart(new_machine().receive([solicit(bytes(16), option=False)], 1.0))
    assert answer.target == ALL_NODES


def test_a_solicitation_through_a_router_is_not_answered() -> None:
    machine = new_machine()
    assert machine.receive([solicit(ttl=254)], 1.0) == []
    assert machine.header.damaged == 1


def test_a_damaged_solicitation_is_not_answered() -> None:
    machine = new_machine()
    frame = bytearray(solicit())
    frame[-1] ^= 1
    assert machine.receive([bytes(frame)], 1.0) == []
    assert machine.header.damaged == 1


def test_a_solicitation_for_someone_else_is_not_answered() -> None:
    assert new_machine().receive([solicit(target=CLIENT_IP6)], 1.0) == []


def test_an_advertisement_answers_a_question() -> None:
    machine = new_machine()
    (question,) = take_apart(machine.call("fd00::1", 9000, 1, 1.0))
    assert question.target == bytes.fromhex("ff0200000000000000000001ff000001")
    assert question.target_mac == bytes.fromhex("3333ff000001")
    body = icmp_message(CLIENT_IP6, GUEST_IP6, 136, 0, b"\x60\0\0\0", CLIENT_IP6 + b"\x02\x01" + CLIENT_MAC)
    frame = ethernet(ipv6(body, 58, CLIENT_IP6, GUEST_IP6, 0, ttl=255), 0x86DD, CLIENT_MAC, GUEST_MAC)
    (syn,) = take_apart(machine.receive([frame], 1.2))
    assert (syn.flags, syn.target_mac) == (2, CLIENT_MAC)
