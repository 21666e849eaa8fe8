"""Rule 2: SYN, FIN, RST, acknowledgements and windows."""

import math

import pytest

from colo_compare.core.actions import Divergence
from colo_compare.core.settings import Settings
from tests.frames import ACK, RST, SYN
from tests.playbook import Playbook


@pytest.fixture
def play() -> Playbook:
    return Playbook(Settings(mirror_retry=math.inf))


# Handshakes


def test_a_handshake_waits_for_the_slower_guest(play: Playbook) -> None:
    c, p, s = play.tcp()
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack)
    play.secondary(s.syn_ack(), releases=[syn_ack])
    play.client(c.ack())


def test_a_handshake_with_a_faster_secondary(play: Playbook) -> None:
    c, p, s = play.tcp()
    play.client(c.syn())
    play.secondary(s.syn_ack())
    syn_ack = p.syn_ack()
    play.primary(syn_ack, releases=[syn_ack])
    play.client(c.ack())


def test_syn_acks_that_were_retransmitted_and_changed_places(play: Playbook) -> None:
    c, p, s = play.tcp()
    play.client(c.syn())
    first = p.syn_ack()
    play.after(1.0)
    again = p.syn_ack()
    one, two = s.syn_ack(), s.syn_ack()
    play.primary(again)
    play.secondary(two, releases=[again])
    play.primary(first, releases=[first])
    play.secondary(one)
    play.client(c.ack())
    play.client(c.data(b"hi"))


def test_a_retransmitted_syn_is_mirrored_again(play: Playbook) -> None:
    c, p, s = play.tcp()
    play.client(c.syn())
    play.after(1.0)
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack)
    play.secondary(s.syn_ack(), releases=[syn_ack])


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("version", [4, 6])
def test_a_guest_opens_a_connection(play: Playbook, times: bool, version: int) -> None:
    c, p, s = play.tcp(client_port=443, guest_port=50000, times=times, version=version)
    syn = p.syn()
    play.primary(syn)
    play.secondary(s.syn(), releases=[syn])
    play.client(c.syn_ack())
    ack, hello = p.ack(), p.data(b"hello")
    play.primary(ack, hello)
    play.secondary(s.ack(), releases=[ack])
    play.secondary(s.data(b"hello"), releases=[hello])
    play.client(c.ack())


def test_a_guest_opens_a_connection_and_the_secondary_is_first(play: Playbook) -> None:
    c, p, s = play.tcp(client_port=443, guest_port=50000)
    play.secondary(s.syn())
    syn = p.syn()
    play.primary(syn, releases=[syn])
    play.client(c.syn_ack())
    play.secondary(s.ack())
    ack = p.ack()
    play.primary(ack, releases=[ack])


def test_a_simultaneous_open(play: Playbook) -> None:
    c, p, s = play.tcp(client_port=443, guest_port=50000)
    syn = p.syn()
    play.primary(syn)
    play.client(c.syn())
    play.secondary(s.syn(), releases=[syn])
    syn_ack = p.syn_ack()
    play.primary(syn_ack)
    play.secondary(s.syn_ack(), releases=[syn_ack])
    play.client(c.syn_ack())
    hello = p.data(b"hello")
    play.primary(hello)
    play.secondary(s.data(b"hello"), releases=[hello])


def test_data_on_a_syn_is_payload(play: Playbook) -> None:
    _, p, s = play.tcp(client_port=443, guest_port=50000)
    syn = p.syn(payload=b"early")
    play.primary(syn)
    play.secondary(s.syn())
    play.secondary(s.segment(ACK, b"early", at=1, ack=0), releases=[syn])


@pytest.mark.parametrize(
    ("mss", "scale", "sack_permitted"), [(1400, 7, True), (1460, 6, True), (1460, 7, False)]
)
def test_a_different_handshake_is_a_divergence(
    play: Playbook, mss: int, scale: int, sack_permitted: bool
) -> None:
    c, p, s = play.tcp()
    play.client(c.syn())
    syn_ack = p.syn_ack()
    play.primary(syn_ack)
    play.secondary(s.syn_ack(mss=mss, scale=scale, sack_permitted=sack_permitted), requests=["handshake"])
    play.pause()
    play.commit(releases=[syn_ack])
    play.client(c.ack())
    hello = p.data(b"hello")
    play.primary(hello)
    play.secondary(s.data(b"hello"), releases=[hello])


def test_timestamps_of_one_guest_only_are_a_divergence(play: Playbook) -> None:
    c, p, s = play.tcp()
    play.client(c.syn())
    play.primary(p.syn_ack())
    c.conversation.times = False
    without = s.syn_ack()
    c.conversation.times = True
    play.secondary(without, requests=["handshake"])


@pytest.mark.parametrize(
    "option", [b"\x13\x12" + bytes(16), b"\x1d\x10" + bytes(14), b"\x1e\x0c" + bytes(10)]
)
def test_signed_segments_cannot_be_rewritten(play: Playbook, option: bytes) -> None:
    c, p, s = play.tcp(times=False)
    play.client(c.syn())
    syn_ack = p.syn_ack(other=option)
    play.primary(syn_ack)
    play.secondary(s.syn_ack(other=option), requests=["unrewritable"])
    play.pause()
    play.commit(releases=[syn_ack])
    play.client(c.ack())
    play.both(p.data(b"x"), s.data(b"x"))


# The end of a stream


def test_a_fin_is_matched_by_a_fin(play: Playbook) -> None:
    _, p, s = play.connection()
    fin = p.fin()
    play.primary(fin)
    play.secondary(s.fin(), releases=[fin])


def test_a_fin_with_data_matches_data_and_a_fin(play: Playbook) -> None:
    _, p, s = play.connection()
    last = p.fin(b"bye")
    play.primary(last)
    play.secondary(s.data(b"bye"))
    play.secondary(s.fin(), releases=[last])


def test_data_goes_out_before_the_fin_is_matched(play: Playbook) -> None:
    _, p, s = play.connection()
    bye, fin = p.data(b"bye"), p.fin()
    play.primary(bye, fin)
    play.secondary(s.data(b"bye"), releases=[bye])
    play.secondary(s.fin(), releases=[fin])


def test_a_fin_of_the_secondary_that_came_first(play: Playbook) -> None:
    _, p, s = play.connection()
    play.secondary(s.fin(b"bye"))
    bye, fin = p.data(b"bye"), p.fin()
    play.primary(bye, fin, releases=[bye, fin])


def test_a_repeated_fin_is_released(play: Playbook) -> None:
    _, p, s = play.connection()
    play.both(p.fin(), s.fin())
    again = p.fin(at=1)
    play.primary(again, releases=[again])


def test_a_fin_at_the_wrap(play: Playbook) -> None:
    c, p, s = play.connection(primary_isn=0xFFFFFFFE, secondary_isn=0xFFFFFFFE, client_isn=0xFFFFFFFE)
    play.client(c.fin())
    ack, fin = p.ack(2), p.fin()
    play.primary(ack, fin)
    play.secondary(s.fin(), releases=[ack, fin])
    play.client(c.ack())


@pytest.mark.parametrize("first", ["primary", "secondary"])
def test_one_ends_where_the_other_goes_on(play: Playbook, first: str) -> None:
    _, p, s = play.connection()
    if first == "primary":
        play.primary(p.fin())
        play.secondary(s.data(b"more"), requests=["fin"])
    else:
        play.secondary(s.data(b"more"))
        play.primary(p.fin(), requests=["fin"])
    assert len(play.held) == 1


def test_the_secondary_ends_where_the_primary_goes_on(play: Playbook) -> None:
    _, p, s = play.connection()
    play.primary(p.data(b"more"))
    play.secondary(s.fin(), requests=["fin"])
    divergence = next(event for event in play.events if isinstance(event, Divergence))
    assert divergence.primary == b"more"


# Resets


def test_a_reset_of_both_is_released(play: Playbook) -> None:
    _, p, s = play.connection()
    rst = p.rst()
    play.primary(rst)
    play.secondary(s.rst(), releases=[rst])


def test_a_reset_of_both_the_secondary_first(play: Playbook) -> None:
    _, p, s = play.connection()
    play.secondary(s.rst())
    rst = p.rst()
    play.primary(rst, releases=[rst])


def test_a_reset_of_the_primary_alone_waits_and_times_out(play: Playbook) -> None:
    _, p, _ = play.connection()
    rst = p.rst()
    play.primary(rst)
    play.after(2.9)
    play.after(0.2, requests=["timeout"])
    play.pause()
    play.commit(releases=[rst])


def test_data_of_the_primary_after_a_reset_of_the_secondary(play: Playbook) -> None:
    _, p, s = play.connection()
    play.secondary(s.rst())
    hello = p.data(b"hello")
    play.primary(hello, requests=["rst"])
    play.pause()
    play.commit(releases=[hello])
    more = p.data(b"more", ack=1)
    play.primary(more)
    play.secondary(s.data(b"more", ack=1), releases=[more])


def test_a_refused_connection(play: Playbook) -> None:
    c, p, s = play.tcp(primary_isn=0, secondary_isn=0)
    play.client(c.syn())
    rst = p.segment(RST | ACK, at=0, ack=1, window=0)
    play.primary(rst)
    play.secondary(s.segment(RST | ACK, at=0, ack=1, window=0), releases=[rst])


def test_a_reset_without_an_acknowledgement(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.rst())
    rst = p.segment(RST, at=1, window=0)
    play.primary(rst)
    play.secondary(s.segment(RST, at=1, window=0), releases=[rst])


def test_a_reset_does_not_overtake_data(play: Playbook) -> None:
    _, p, s = play.connection()
    hello, rst = p.data(b"hello"), p.rst()
    play.primary(hello, rst)
    play.secondary(s.rst(at=6))
    assert play.held == [hello, rst]


# Acknowledgements


def test_an_ack_beyond_the_secondarys_waits(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.data(b"request"))
    ack = p.ack()
    play.primary(ack)
    play.secondary(s.ack(), releases=[ack])


def test_an_ack_of_an_ahead_secondary_goes_at_once(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.data(b"request"))
    play.secondary(s.ack())
    ack = p.ack()
    play.primary(ack, releases=[ack])


def test_data_with_an_ack_waits_for_both(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.data(b"request"))
    answer = p.data(b"answer")
    play.primary(answer)
    play.secondary(s.data(b"answer", ack=1))
    play.secondary(s.ack(8), releases=[answer])


def test_a_late_secondary_ack_is_no_divergence(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.data(b"request"))
    ack = p.ack()
    play.primary(ack)
    play.after(2.9)
    play.secondary(s.ack(4))
    play.secondary(s.ack(8), releases=[ack])


def test_a_partial_ack_of_the_secondary_releases_partial_acks(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.data(b"one"), c.data(b"two"))
    first, second = p.ack(4), p.ack(7)
    play.primary(first, second)
    play.secondary(s.ack(4), releases=[first])
    play.secondary(s.ack(7), releases=[second])


def test_a_lone_ack_does_not_wait_for_a_payload(play: Playbook) -> None:
    """The secondary's acknowledgement may come on a data segment that the primary has not sent yet."""
    c, p, s = play.connection()
    play.client(c.data(b"request"))
    ack = p.ack()
    play.primary(ack)
    play.secondary(s.data(b"answer"), releases=[ack])


def test_a_lone_ack_does_not_wait_behind_an_unmatched_payload(play: Playbook) -> None:
    c, p, s = play.connection()
    answer = p.data(b"answer")
    play.primary(answer)
    play.client(c.data(b"request"))
    ack = p.ack()
    play.primary(ack)
    play.secondary(s.ack(), releases=[ack])
    play.secondary(s.data(b"answer", at=1), releases=[answer])


def test_acks_near_the_wrap_of_the_clients_numbers(play: Playbook) -> None:
    c, p, s = play.connection(client_isn=0xFFFFFFFB)
    play.client(c.data(b"request!"))
    ack = p.ack()
    play.primary(ack)
    play.secondary(s.ack(3))
    play.secondary(s.ack(9), releases=[ack])


def test_a_duplicate_ack_goes_out(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.data(b"later", at=6))
    duplicate = p.segment(ACK, ack=1, blocks=((6, 11),))
    play.primary(duplicate, releases=[duplicate])
    play.secondary(s.segment(ACK, ack=1, blocks=((6, 11),)))


# The window

NARROW = 1  # so that every later offer reaches further than the handshake's


@pytest.mark.parametrize("scale", [0, 1, 7, 14])
@pytest.mark.parametrize(("primary", "secondary"), [(500, 400), (400, 500), (500, 500), (500, 1), (1, 500)])
@pytest.mark.parametrize("version", [4, 6])
def test_the_client_sees_the_smaller_window(
    play: Playbook, scale: int, primary: int, secondary: int, version: int
) -> None:
    c, p, s = play.connection(scale=scale, version=version, syn_window=NARROW)
    play.secondary(s.ack(window=secondary))
    ack = p.ack(window=primary)
    play.primary(ack, releases=[ack])
    assert play.offer(c) == 1 + (min(primary, secondary) << scale)


def test_a_window_in_a_syn_is_not_scaled(play: Playbook) -> None:
    c, p, s = play.tcp(scale=7)
    play.client(c.syn())
    play.secondary(s.syn_ack(window=1000))
    syn_ack = p.syn_ack(window=65535)
    play.primary(syn_ack, releases=[syn_ack])
    assert play.offer(c) == 1 + 1000


def test_a_client_that_does_not_scale_forbids_it_to_both(play: Playbook) -> None:
    """RFC 7323, section 2.2: without the option in both SYNs no window is scaled."""
    c, p, s = play.tcp(scale=0)
    play.client(c.segment(SYN, at=0, without_scale=True))
    play.secondary(s.segment(SYN | ACK, at=0, window=NARROW, without_scale=True))
    syn_ack = p.segment(SYN | ACK, at=0, window=NARROW, without_scale=True)
    play.primary(syn_ack, releases=[syn_ack])
    play.client(c.ack())
    play.secondary(s.ack(window=700))
    ack = p.ack(window=900)
    play.primary(ack, releases=[ack])
    assert play.offer(c) == 1 + 700


def test_different_acknowledgements_give_one_right_edge(play: Playbook) -> None:
    c, p, s = play.connection(scale=0, syn_window=1000)
    play.client(c.data(b"x" * 600))
    play.secondary(s.ack(601, window=800))  # up to 1401
    ack = p.ack(301, window=1500)  # up to 1801
    play.primary(ack, releases=[ack])
    assert play.offer(c) <= 1401


def test_data_is_clamped_too(play: Playbook) -> None:
    c, p, s = play.connection(syn_window=NARROW)
    play.secondary(s.data(b"answer", window=10))
    answer = p.data(b"answer", window=300)
    play.primary(answer, releases=[answer])
    assert play.offer(c) == 1 + (10 << 7)


def test_a_clamped_frame_with_partial_checksum_keeps_it(play: Playbook) -> None:
    c, p, s = play.connection(header_len=12, syn_window=NARROW)
    play.secondary(s.data(b"answer", window=10))
    answer = p.data(b"answer", window=300)
    play.primary(answer, releases=[answer])
    assert play.offer(c) == 1 + (10 << 7)


def test_a_window_that_was_clamped_opens_again(play: Playbook) -> None:
    """The primary has no reason to say anything when the secondary's offer grows: the proxy has to."""
    c, p, s = play.connection(syn_window=NARROW)
    play.client(c.data(b"x"))
    play.secondary(s.ack(window=0))
    ack = p.ack(window=300)
    play.primary(ack, releases=[ack])
    assert play.offer(c) == 2
    play.secondary(s.ack(window=200), updates=[c])
    assert play.offer(c) == 2 + (200 << 7)
    play.secondary(s.ack(window=400), updates=[c])
    assert play.offer(c) == 2 + (300 << 7)
    play.secondary(s.ack(window=500))


def test_a_probe_of_the_client_finds_the_window_open(play: Playbook) -> None:
    c, p, s = play.connection(syn_window=NARROW)
    play.client(c.data(b"x"))
    play.secondary(s.ack(window=0))
    ack = p.ack(window=300)
    play.primary(ack, releases=[ack])
    play.secondary(s.ack(window=200), updates=[c])
    play.client(c.ack(at=1))
    answer = p.ack(window=300)
    play.primary(answer, releases=[answer])
    assert play.offer(c) == 2 + (200 << 7)


def test_a_zero_window_of_the_primary_is_told(play: Playbook) -> None:
    c, p, s = play.connection(syn_window=NARROW)
    play.client(c.data(b"x"))
    play.secondary(s.ack(window=300))
    ack = p.ack(window=0)
    play.primary(ack, releases=[ack])
    assert play.offer(c) == 2
    play.secondary(s.ack(window=400))
    opened = p.ack(window=400)
    play.primary(opened, releases=[opened])
    assert play.offer(c) == 2 + (400 << 7)


def test_a_window_update_of_the_primary_needs_no_answer(play: Playbook) -> None:
    _, p, _ = play.connection()
    for window in (502, 600, 500):
        update = p.ack(window=window)
        play.primary(update, releases=[update])


# Ports that are used again


def test_the_same_ports_again_after_a_close(play: Playbook) -> None:
    c, p, s = play.connection()
    play.client(c.fin())
    play.both(p.fin(), s.fin())
    play.client(c.ack())
    _, p2, s2 = play.connection(client_isn=900_000, primary_isn=3_000_000, secondary_isn=2_000_000)
    hello = p2.data(b"hello")
    play.primary(hello)
    play.secondary(s2.data(b"hello"), releases=[hello])


def test_the_same_ports_again_without_a_close(play: Playbook) -> None:
    """The client forgot (a reboot): its SYN is a new connection once both guests answer it as one."""
    play.connection()
    _, p2, s2 = play.connection(client_isn=900_000, primary_isn=3_000_000, secondary_isn=2_000_000)
    hello = p2.data(b"hello")
    play.primary(hello)
    play.secondary(s2.data(b"hello"), releases=[hello])


def test_the_same_ports_again_after_a_reset(play: Playbook) -> None:
    c, _, _ = play.connection()
    play.client(c.rst())
    _, p2, s2 = play.connection(client_isn=55, primary_isn=77, secondary_isn=88)
    hello = p2.data(b"hello")
    play.primary(hello)
    play.secondary(s2.data(b"hello"), releases=[hello])


def test_a_guest_uses_its_ports_again(play: Playbook) -> None:
    for isn in (1000, 2_000_000, 500):
        c, p, s = play.tcp(
            client_port=443, guest_port=50000, primary_isn=isn, secondary_isn=isn + 7, client_isn=isn
        )
        syn = p.syn()
        play.primary(syn)
        play.secondary(s.syn(), releases=[syn])
        play.client(c.syn_ack())
        ack, hello = p.ack(), p.data(b"hello")
        play.primary(ack, hello)
        play.secondary(s.data(b"hello"), releases=[ack, hello])
        play.client(c.rst())


def test_a_stray_syn_does_not_hurt_a_living_connection(play: Playbook) -> None:
    """RFC 9293, section 3.10.7.4: a SYN in the window of an open connection gets a challenge ACK."""
    c, p, s = play.connection()
    play.both(p.data(b"hello"), s.data(b"hello"))
    play.client(c.ack())
    play.client(c.segment(SYN, at=900))
    challenge = p.ack(1)
    play.primary(challenge, releases=[challenge])
    play.secondary(s.ack(1))
    more = p.data(b"more", ack=1)
    play.primary(more)
    play.secondary(s.data(b"more", ack=1), releases=[more])


def test_a_fin_out_of_order(play: Playbook) -> None:
    _, p, s = play.connection()
    bye, fin = p.data(b"bye"), p.fin()
    play.primary(fin)
    bye2, fin2 = s.data(b"bye"), s.fin()
    play.secondary(fin2)
    play.secondary(bye2, releases=[fin])
    play.primary(bye, releases=[bye])


def test_a_stray_segment_to_a_closed_port_costs_no_checkpoint(play: Playbook) -> None:
    """Both guests answer it with the same reset; a scan must not be a way to stop the primary every 3 s."""
    c, p, s = play.connection(client_port=1)
    play.client(c.fin())
    play.both(p.fin(), s.fin())
    play.client(c.ack())
    play.after(300.0)
    c, p, s = play.tcp(client_port=2, primary_isn=500, secondary_isn=500)
    play.client(c.ack(ack=1, at=1))
    rst = p.segment(0x04, at=1, window=0)
    play.primary(rst)
    play.secondary(s.segment(0x04, at=1, window=0), releases=[rst])
    play.after(10.0)
