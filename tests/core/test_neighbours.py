import pytest

from colo_compare.core.neighbours import Neighbours
from colo_compare.wire.frame import Frame, parse_frame
from tests import frames
from tests.conversation import Clock, Conversation, Endpoint
from tests.frames import dissect


def ends(version: int = 4, vlans: tuple[int, ...] = ()) -> tuple[Endpoint, Endpoint, Endpoint]:
    talk = Conversation(Clock(0.0), version, vlans)
    return talk.client, talk.primary, talk.secondary


def parsed(data: bytes) -> Frame:
    return parse_frame(data, 0, False)


def test_nothing_known_nothing_said() -> None:
    _, _, s = ends()
    neighbours = Neighbours()
    assert neighbours.announcements() == []
    assert neighbours.answer(parsed(s.arp().data)) is None


@pytest.mark.parametrize("vlans", [(), (7,)])
def test_what_the_guest_claimed_is_announced_once(vlans: tuple[int, ...]) -> None:
    _, p, _ = ends(vlans=vlans)
    _, p6, _ = ends(6, vlans)
    neighbours = Neighbours()
    for _ in range(2):
        neighbours.learn_guest(parsed(p.arp().data))
        neighbours.learn_guest(parsed(p6.advertisement().data))
    arp, advertisement = (dissect(frame.data) for frame in neighbours.announcements())
    assert (arp.ethertype, arp.source_mac, arp.vlans) == (0x0806, frames.GUEST_MAC, vlans)
    assert (advertisement.source, advertisement.vlans) == (frames.GUEST_IP6, vlans)


def test_other_frames_claim_nothing() -> None:
    c, p, _ = ends()
    neighbours = Neighbours()
    neighbours.learn_guest(parsed(p.opaque(0x88CC, bytes(46)).data))
    neighbours.learn_client(parsed(c.opaque(0x88CC, bytes(46)).data))
    assert neighbours.announcements() == []


def test_a_guest_with_very_many_addresses_is_announced_in_part() -> None:
    neighbours = Neighbours()
    for number in range(300):
        address = bytes((10, 1, number >> 8, number & 0xFF))
        neighbours.learn_guest(parsed(frames.arp(frames.GUEST_MAC, address, frames.CLIENT_IP4)))
    assert len(neighbours.announcements()) == 256


def question(s: Endpoint) -> Frame:
    return parsed(s.arp().data)


def test_the_secondary_is_answered_for_the_client() -> None:
    c, _, s = ends()
    neighbours = Neighbours()
    neighbours.learn_client(parsed(c.arp().data))
    answer = neighbours.answer(question(s))
    assert answer is not None
    body = answer.data[14:]
    assert answer.data[:6] == frames.GUEST_MAC
    assert body[6:8] == b"\x00\x02"
    assert (body[8:14], body[14:18]) == (frames.CLIENT_MAC, frames.CLIENT_IP4)
    assert (body[18:24], body[24:28]) == (frames.GUEST_MAC, frames.GUEST_IP4)


def test_the_newest_claim_counts() -> None:
    _, _, s = ends()
    neighbours = Neighbours()
    for mac in (frames.CLIENT_MAC, b"\x02newer"):
        neighbours.learn_client(parsed(frames.arp(mac, frames.CLIENT_IP4, frames.GUEST_IP4)))
    answer = neighbours.answer(question(s))
    assert answer is not None
    assert answer.data[22:28] == b"\x02newer"


def test_another_vlan_is_another_link() -> None:
    c, _, _ = ends(vlans=(1,))
    _, _, s = ends(vlans=(2,))
    neighbours = Neighbours()
    neighbours.learn_client(parsed(c.arp().data))
    assert neighbours.answer(question(s)) is None


def test_the_oldest_neighbour_is_forgotten_first() -> None:
    _, _, s = ends()
    neighbours = Neighbours()
    neighbours.learn_client(parsed(frames.arp(frames.CLIENT_MAC, frames.CLIENT_IP4, frames.GUEST_IP4)))
    for number in range(4096):
        address = bytes((10, 2, number >> 8, number & 0xFF))
        neighbours.learn_client(parsed(frames.arp(frames.CLIENT_MAC, address, frames.GUEST_IP4)))
    assert neighbours.answer(question(s)) is None


def test_what_is_no_question_gets_no_answer() -> None:
    _, _, s = ends()
    assert Neighbours().answer(parsed(s.opaque(0x88CC, bytes(46)).data)) is None
