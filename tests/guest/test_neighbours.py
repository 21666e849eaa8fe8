"""The neighbour cache."""

from colo_compare.guest import Identity, Machine
from tests.frames import CLIENT_IP4, CLIENT_MAC, GUEST_MAC, udp_datagram
from tests.guest.peer import SMALL, Peer, arp_message, new_machine, new_memory, packet, take_apart

ECHO = packet(17, udp_datagram(CLIENT_IP4, bytes((10, 0, 0, 2)), 5000, 7, b"x"))
ARP = b"\x08\x06"


def kinds(frames: list[bytes]) -> list[bytes]:
    return [frame[12:14] for frame in frames]


def test_one_frame_waits_for_the_answer() -> None:
    machine = new_machine()
    assert kinds(machine.receive([ECHO, ECHO], 1.0)) == [ARP]
    (answer,) = take_apart(machine.receive([arp_message(2)], 1.1))
    assert (answer.target_mac, answer.payload) == (CLIENT_MAC, b"x")
    assert machine.header.parcels_lost == 1
    assert kinds(machine.receive([ECHO], 1.2)) == [b"\x08\x00"]


def test_three_questions_are_asked() -> None:
    machine = new_machine()
    asked = machine.receive([ECHO], 1.0)
    while (due := machine.next_timer()) < float("inf"):
        asked += machine.handle_timer(due)
    assert kinds(asked) == [ARP] * 3
    assert all(frame[:6] == b"\xff" * 6 for frame in asked)
    assert machine.header.clock == 4_000_000
    assert machine.header.parcels_lost == 1
    assert kinds(machine.receive([ECHO], 9.0)) == [ARP]  # and once more, as someone asks again


def test_an_old_address_is_probed_while_it_is_used() -> None:
    machine = new_machine()
    machine.receive([ECHO], 1.0)
    machine.receive([arp_message(2)], 1.0)
    assert kinds(machine.receive([ECHO], 30.9)) == [b"\x08\x00"]
    said = machine.receive([ECHO], 31.1)
    assert kinds(said) == [ARP, b"\x08\x00"]
    assert said[0][:6] == CLIENT_MAC
    machine.receive([arp_message(2)], 31.2)
    assert kinds(machine.receive([ECHO], 60.0)) == [b"\x08\x00"]


def test_an_address_that_was_learned_by_the_way_is_checked_soon() -> None:
    machine = new_machine()
    machine.receive([arp_message(1)], 1.0)
    assert kinds(machine.receive([ECHO], 5.9)) == [b"\x08\x00"]
    assert kinds(machine.receive([ECHO], 6.1)) == [ARP, b"\x08\x00"]


def test_a_connection_that_goes_on_needs_no_question() -> None:
    peer = Peer(new_machine(), port=7, now=1.0).open()
    for _ in range(10):
        peer.now += 20
        assert len(peer.send(b"x")) == 1
        assert peer.acknowledge() == []


def test_a_neighbour_that_moves_is_followed() -> None:
    machine = new_machine()
    machine.receive([arp_message(1)], 1.0)
    moved = bytes.fromhex("02c000000009")
    machine.receive([arp_message(1).replace(CLIENT_MAC, moved)], 1.0)
    (answer,) = machine.receive([ECHO], 1.1)
    assert answer[:12] == moved + GUEST_MAC


def test_a_crowd_of_neighbours_shares_the_table() -> None:
    machine = new_machine()
    for number in range(3, 250):
        machine.receive([arp_message(1, sender_ip=bytes((10, 0, 0, number)))], 1.0 + number)
    machine.receive([arp_message(1)], 300.0)
    assert kinds(machine.receive([ECHO], 300.0)) == [b"\x08\x00"]


def test_who_is_far_is_reached_through_the_gateway() -> None:
    identity = Identity("02:50:00:00:00:02", "10.0.0.2/24", "fd00::2/64", "10.0.0.1", "fd00::1")
    machine = Machine(new_memory(SMALL, identity))
    for address, gateway in (("192.0.2.1", "0a000001"), ("2001:db8::1", "fd000000000000000000000000000001")):
        (question,) = machine.call(address, 80, 1, 1.0)
        assert bytes.fromhex(gateway) in question
    assert new_machine().call("192.0.2.1", 80, 1, 1.0) == []  # no gateway: nowhere to go


def test_the_guest_announces_itself() -> None:
    arp, advertisement = new_machine().announce(1.0)
    assert (
        arp
        == arp[:14] + bytes.fromhex("0001080006040001") + GUEST_MAC + b"\x0a\0\0\2" + bytes(6) + b"\x0a\0\0\2"
    )
    (found,) = take_apart([advertisement])
    assert found.data[54] == 136
