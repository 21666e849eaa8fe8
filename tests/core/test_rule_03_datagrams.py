"""Rule 3: UDP, ICMP, other IP, and fragments."""

import itertools

import pytest

from colo_compare.core.actions import Divergence
from colo_compare.core.settings import Settings
from tests.conversation import Packet
from tests.playbook import Playbook

WINDOW = Settings().datagram_window
TIMEOUT = Settings().compare_timeout


@pytest.fixture
def play() -> Playbook:
    return Playbook()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("vlans", [(), (7,), (8, 7)])
def test_an_equal_datagram_releases(play: Playbook, version: int, vlans: tuple[int, ...]) -> None:
    c, p, s = play.datagrams(version=version, vlans=vlans)
    play.client(c.datagram(b"?"))
    play.both(p.datagram(b"answer"), s.datagram(b"answer"))


def test_a_secondary_that_is_first(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.secondary(s.datagram(b"answer"))
    answer = p.datagram(b"answer")
    play.primary(answer, releases=[answer])


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_any_order_of_the_secondary_releases_in_the_primarys(play: Playbook, order: tuple[int, ...]) -> None:
    _, p, s = play.datagrams()
    waiting = [p.datagram(b"answer %d" % n) for n in range(3)]
    play.primary(*waiting)
    said: set[bytes] = set()
    for n in order:
        said.add(b"answer %d" % n)
        due: list[Packet] = []
        while waiting and waiting[0].payload in said:
            due.append(waiting.pop(0))
        play.secondary(s.datagram(b"answer %d" % n), releases=due)
    assert not play.held


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_any_order_of_the_primary_after_the_secondary(play: Playbook, order: tuple[int, ...]) -> None:
    _, p, s = play.datagrams()
    play.secondary(*(s.datagram(b"answer %d" % n) for n in range(3)))
    for n in order:
        answer = p.datagram(b"answer %d" % n)
        play.primary(answer, releases=[answer])


def test_each_copy_needs_a_copy_of_its_own(play: Playbook) -> None:
    _, p, s = play.datagrams()
    one, two = p.datagram(b"same"), p.datagram(b"same")
    play.primary(one, two)
    play.secondary(s.datagram(b"same"), releases=[one])
    play.secondary(s.datagram(b"same"), releases=[two])


def test_flows_are_apart(play: Playbook) -> None:
    _, p, s = play.datagrams(client_port=1)
    _, p2, s2 = play.datagrams(client_port=2)
    one, two = p.datagram(b"one"), p2.datagram(b"two")
    play.primary(one, two)
    play.secondary(s.datagram(b"two"))
    play.secondary(s2.datagram(b"two"), releases=[two])


def test_a_different_payload_is_a_divergence_after_the_window(play: Playbook) -> None:
    _, p, s = play.datagrams()
    answer = p.datagram(b"answer 1")
    play.primary(answer)
    play.secondary(s.datagram(b"answer 2"))
    play.after(WINDOW * 0.9)
    play.after(WINDOW * 0.2, requests=["payload"])
    divergence = next(event for event in play.events if isinstance(event, Divergence))
    assert (divergence.offset, divergence.primary, divergence.secondary) == (7, b"1", b"2")
    play.pause()
    play.commit(releases=[answer])


def test_a_difference_that_was_only_a_change_of_places(play: Playbook) -> None:
    _, p, s = play.datagrams()
    one, two = p.datagram(b"one"), p.datagram(b"two")
    play.primary(one)
    play.secondary(s.datagram(b"two"))
    play.after(WINDOW * 0.9)
    play.secondary(s.datagram(b"one"), releases=[one])
    play.primary(two, releases=[two])
    play.after(WINDOW * 10)


def test_a_longer_payload_is_another_one(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.primary(p.datagram(b"answer"))
    play.secondary(s.datagram(b"answer and more"))
    play.after(WINDOW * 1.1, requests=["payload"])


def test_an_empty_datagram(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.both(p.datagram(b""), s.datagram(b""))


def test_silence_of_the_secondary_is_a_timeout(play: Playbook) -> None:
    _, p, _ = play.datagrams()
    answer = p.datagram(b"answer")
    play.primary(answer)
    play.after(TIMEOUT * 0.99)
    play.after(TIMEOUT * 0.02, requests=["timeout"])
    play.pause()
    play.commit(releases=[answer])


def test_what_the_secondary_alone_said_ages_out(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.secondary(s.datagram(b"answer"))
    play.after(120.0)
    answer = p.datagram(b"answer")
    play.primary(answer)
    assert play.proxy.counters.secondary["aged_out"] == 1


def test_headers_that_do_not_count(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.both(p.datagram(b"answer", tos=4, ttl=63), s.datagram(b"answer", tos=8, ttl=200))


def test_a_udp_checksum_may_be_absent_or_the_frame_padded(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.both(p.datagram(b"answer", with_checksum=False), s.datagram(b"answer"))
    play.both(p.datagram(b"hi", pad=True), s.datagram(b"hi"))


# ICMP and others


@pytest.mark.parametrize(("version", "kind"), [(4, 0), (6, 129)])
def test_an_echo_reply(play: Playbook, version: int, kind: int) -> None:
    c, p, s = play.datagrams(version=version)
    play.client(c.icmp(8 if version == 4 else 128, b"ping"))
    play.both(p.icmp(kind, b"ping"), s.icmp(kind, b"ping"))


def test_the_sequence_number_of_an_echo_counts(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.primary(p.icmp(0, b"ping", sequence=1))
    play.secondary(s.icmp(0, b"ping", sequence=2))
    play.after(WINDOW * 1.1, requests=["payload"])


def test_echoes_of_two_identifiers_are_two_flows(play: Playbook) -> None:
    _, p, s = play.datagrams()
    _, p2, s2 = play.datagrams()
    one, two = p.icmp(0, b"ping", identifier=1), p2.icmp(0, b"pong", identifier=2)
    play.primary(one)
    play.primary(two)
    play.secondary(s2.icmp(0, b"pong", identifier=2), releases=[two])
    play.secondary(s.icmp(0, b"ping", identifier=1), releases=[one])


def test_the_type_of_an_icmp_message_counts(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.primary(p.icmp(3, b"x", code=3))
    play.secondary(s.icmp(3, b"x", code=1))
    play.after(WINDOW * 1.1, requests=["payload"])


@pytest.mark.parametrize("version", [4, 6])
def test_an_unreachable_quotes_headers_that_differ(play: Playbook, version: int) -> None:
    """An error message quotes the client's packet: both guests got the same one, so it is compared whole."""
    _, p, s = play.datagrams(version=version)
    kind = 3 if version == 4 else 1
    play.both(p.icmp(kind, b"\x45" + bytes(27), code=3), s.icmp(kind, b"\x45" + bytes(27), code=3))


@pytest.mark.parametrize("version", [4, 6])
def test_another_protocol(play: Playbook, version: int) -> None:
    _, p, s = play.datagrams(version=version)
    play.both(p.other_ip(132, b"sctp-like"), s.other_ip(132, b"sctp-like"))
    play.primary(p.other_ip(47, b"gre"))
    play.secondary(s.other_ip(47, b"GRE"))
    play.after(WINDOW * 1.1, requests=["payload"])


# Fragments

LONG = bytes(range(256)) * 12


@pytest.mark.parametrize("version", [4, 6])
def test_fragments_are_compared_as_their_datagram(play: Playbook, version: int) -> None:
    _, p, s = play.datagrams(version=version)
    pieces = p.fragments(LONG, 0x1111, (1480, 2960))
    play.primary(*pieces)
    other = s.fragments(LONG, 0x2222, (1480, 2960))
    play.secondary(*other[:-1])
    play.secondary(other[-1], releases=pieces)


@pytest.mark.parametrize("version", [4, 6])
def test_fragments_of_other_sizes(play: Playbook, version: int) -> None:
    _, p, s = play.datagrams(version=version)
    pieces = p.fragments(LONG, 1, (1480, 2960))
    play.primary(*pieces)
    play.secondary(*s.fragments(LONG, 2, (8, 1024, 2048)), releases=pieces)


def test_a_whole_datagram_matches_fragments(play: Playbook) -> None:
    """One guest's path MTU may be older than the other's."""
    _, p, s = play.datagrams()
    pieces = p.fragments(LONG, 1, (1480, 2960))
    play.primary(*pieces)
    play.secondary(s.datagram(LONG), releases=pieces)
    whole = p.datagram(LONG)
    play.primary(whole)
    play.secondary(*s.fragments(LONG, 9, (1480,)), releases=[whole])


def test_fragments_out_of_order_and_twice(play: Playbook) -> None:
    _, p, s = play.datagrams()
    one, two, three = p.fragments(LONG, 1, (1480, 2960))
    play.primary(three, one, two)
    a, b, c = s.fragments(LONG, 2, (1480, 2960))
    play.secondary(b, b, c)
    play.secondary(a, releases=[three, one, two])


def test_fragments_of_two_datagrams_interleaved(play: Playbook) -> None:
    _, p, s = play.datagrams()
    a1, a2 = p.fragments(LONG, 1, (1480,))
    b1, b2 = p.fragments(LONG[::-1], 2, (1480,))
    play.primary(a1, b1, b2, a2)
    play.secondary(*s.fragments(LONG, 3, (1480,)))
    play.secondary(*s.fragments(LONG[::-1], 4, (1480,)), releases=[b1, b2, a1, a2])


def test_a_fragment_that_differs(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.primary(*p.fragments(LONG, 1, (1480,)))
    play.secondary(*s.fragments(LONG[:-1] + b"!", 2, (1480,)))
    play.after(WINDOW * 1.1, requests=["payload"])


def test_a_datagram_that_never_gets_whole_waits_and_is_not_lost(play: Playbook) -> None:
    _, p, s = play.datagrams()
    first, _ = p.fragments(LONG, 1, (1480,))
    play.primary(first)
    half, _ = s.fragments(LONG, 2, (1480,))
    play.secondary(half)
    play.after(TIMEOUT * 1.01, requests=["timeout"])
    play.pause()
    play.commit(releases=[first])


def test_fragments_from_the_client_reach_both(play: Playbook) -> None:
    c, _, _ = play.datagrams()
    for piece in c.fragments(LONG, 5, (1480,)):
        play.client(piece)


def test_a_fragmented_datagram_follows_a_whole_one(play: Playbook) -> None:
    _, p, s = play.datagrams()
    small, pieces = p.datagram(b"small"), p.fragments(LONG, 1, (1480,))
    play.primary(small, *pieces)
    play.secondary(*s.fragments(LONG, 2, (1480,)))
    play.secondary(s.datagram(b"small"), releases=[small, *pieces])
