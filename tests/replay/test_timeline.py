import pytest

from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.errors import CaptureError
from colo_compare.replay.recording import Recording
from colo_compare.replay.timeline import CLOCK, START, Timeline, lay_out
from tests.frames import CLIENT_MAC, GUEST_MAC, arp
from tests.replay.conftest import Pair


def laid_out(pair: Pair, *, client: bool = False, guest: bytes | None = None, align: str = START) -> Timeline:
    return lay_out(
        Recording(pair.primary()),
        Recording(pair.secondary()),
        Recording(pair.client()) if client else None,
        guest,
        align,
    )


def sides(timeline: Timeline) -> list[int]:
    return [side for _, side, _ in timeline]


def test_a_handshake_is_told_apart(pair: Pair) -> None:
    pair.connection()
    assert sides(laid_out(pair)) == [CLIENT, PRIMARY, SECONDARY, CLIENT]


def test_captures_of_the_guests_output_alone(pair: Pair) -> None:
    pair.connection()
    pair.primary_frames = [entry for entry in pair.primary_frames if entry not in pair.client_frames]
    pair.secondary_frames = [entry for entry in pair.secondary_frames if entry not in pair.client_frames]
    timeline = laid_out(pair)
    assert sides(timeline) == [PRIMARY, SECONDARY]
    assert timeline.guests.macs == {GUEST_MAC}
    assert timeline.guests.why == "the only one that sent IP frames"


def test_the_guest_is_who_begins_with_two_different_numbers(pair: Pair) -> None:
    talk = pair.talk(client_port=80)
    pair.pass_by(talk.primary.syn(), talk.secondary.syn())  # the guest is the TCP client here
    pair.pass_by(talk.client.syn_ack())
    timeline = laid_out(pair)
    assert timeline.guests.macs == {GUEST_MAC}
    assert "initial sequence numbers" in timeline.guests.why


def test_of_guests_with_equal_numbers_it_is_who_answers(pair: Pair) -> None:
    pair.connection(secondary_isn=10_000)
    timeline = laid_out(pair)
    assert timeline.guests.macs == {GUEST_MAC}
    assert "SYN-ACKs" in timeline.guests.why


def test_where_nothing_tells_the_guest_must_be_named(pair: Pair) -> None:
    talk = pair.talk()
    pair.pass_by(talk.client.datagram(b"?"), talk.primary.datagram(b"!"), talk.secondary.datagram(b"!"))
    with pytest.raises(CaptureError, match=r"02:c0:00:00:00:01 \(1 frames\).*--guest-mac"):
        laid_out(pair)
    assert sides(laid_out(pair, guest=GUEST_MAC)) == [CLIENT, PRIMARY, SECONDARY]


def test_a_named_guest_must_be_there(pair: Pair) -> None:
    pair.connection()
    with pytest.raises(CaptureError, match=r"primary\.pcap: no IP frames from 52:54:00:00:00:09; it has 02:"):
        laid_out(pair, guest=bytes.fromhex("525400000009"))


def test_a_capture_without_ip_is_refused(pair: Pair) -> None:
    pair.connection()
    pair.secondary_frames = [(0.0, arp(GUEST_MAC, b"\x0a\0\0\2", b"\x0a\0\0\1"))]
    with pytest.raises(CaptureError, match=r"secondary\.pcap: no IP frames in it"):
        laid_out(pair)


def test_an_empty_capture_is_refused(pair: Pair) -> None:
    pair.connection()
    pair.secondary_frames = []
    with pytest.raises(CaptureError, match=r"secondary\.pcap: no frames"):
        laid_out(pair)


def test_frames_for_others_are_left_out(pair: Pair) -> None:
    talk = pair.connection()
    stray = bytearray(talk.client.data(b"for somebody else").data)
    stray[:6] = bytes.fromhex("52540000beef")
    pair.primary_frames.append((pair.clock.now, bytes(stray)))
    assert sides(laid_out(pair)) == [CLIENT, PRIMARY, SECONDARY, CLIENT]


def test_broadcasts_reach_the_guest(pair: Pair) -> None:
    pair.connection()
    pair.primary_frames.append((1.0, arp(CLIENT_MAC, b"\x0a\0\0\1", b"\x0a\0\0\2")))
    assert sides(laid_out(pair))[-1] == CLIENT


def test_with_a_client_capture_its_frames_count_and_not_those_at_the_primary(pair: Pair) -> None:
    talk = pair.connection()
    pair.client_frames.append((0.0, talk.client.data(b"lost on its way to the primary").data))
    assert sides(laid_out(pair)).count(CLIENT) == 2
    assert sides(laid_out(pair, client=True)).count(CLIENT) == 3


@pytest.mark.parametrize("skew", [0.0, -86400.0, 1234.5])
def test_clocks_of_two_machines_become_one(pair: Pair, skew: float) -> None:
    pair.skew = skew
    pair.connection()
    timeline = laid_out(pair)
    assert timeline.aligned
    assert timeline.secondary_shift == -skew * 1e9
    assert [at for at, _, _ in timeline] == pytest.approx([0.0, 1e-5, 1e-5, 2e-5], abs=1e-6)


def test_the_guests_first_answer_aligns_where_no_client_frame_does(pair: Pair) -> None:
    pair.connection()
    pair.primary_frames = [entry for entry in pair.primary_frames if entry not in pair.client_frames]
    pair.skew = 100.0
    assert laid_out(pair).secondary_shift == -100 * 10**9


def test_an_equal_datagram_aligns(pair: Pair) -> None:
    talk = pair.talk()
    pair.pass_by(talk.client.datagram(b"?"), talk.primary.datagram(b"!"), talk.secondary.datagram(b"!"))
    pair.skew = 50.0
    assert laid_out(pair, guest=GUEST_MAC).secondary_shift == -50 * 10**9


def test_flows_that_were_there_before_align_nothing(pair: Pair) -> None:
    pair.connection()
    pair.primary_frames = pair.primary_frames[2:]  # without the handshake
    pair.skew = 100.0
    timeline = laid_out(pair, guest=CLIENT_MAC)
    assert not timeline.aligned
    assert timeline.secondary_shift == 0


def test_one_clock_is_left_alone(pair: Pair) -> None:
    pair.skew = 100.0
    pair.connection()
    timeline = laid_out(pair, align=CLOCK)
    assert not timeline.aligned
    assert [round(at) for at, side, _ in timeline if side == SECONDARY] == [100]


def test_the_client_capture_has_a_clock_of_its_own(pair: Pair) -> None:
    pair.connection()
    pair.client_frames = [(at - 3600.0, data) for at, data in pair.client_frames]
    assert [at for at, _, _ in laid_out(pair, client=True)] == pytest.approx(
        [0.0, 1e-5, 1e-5, 2e-5], abs=1e-6
    )
