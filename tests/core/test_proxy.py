"""The entry object: what it is asked and told, whatever the parts make of it."""

import dataclasses
import math

import pytest

from colo_compare.core.actions import Actions
from colo_compare.core.proxy import Proxy
from colo_compare.core.settings import BYPASS, OBSERVE, PROTECT, SOLO, Settings
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.wire.frame import OPAQUE_REASONS, RST, parse_frame
from tests.playbook import Playbook

QUIET = Settings(mirror_retry=math.inf, announce=False)


@pytest.fixture
def play() -> Playbook:
    return Playbook(QUIET)


def test_a_new_proxy_has_nothing_to_do() -> None:
    proxy = Proxy(QUIET, 5.0)
    assert (proxy.mode, proxy.epoch, proxy.checkpoint_state, proxy.protected) == (
        PROTECT,
        0,
        "comparing",
        False,
    )
    assert (proxy.held_frames, proxy.held_bytes, proxy.oldest_held(9.0), proxy.client_waiting) == (
        0,
        0,
        0.0,
        0,
    )
    assert proxy.flows() == {"half_open": 0, "established": 0, "closed": 0, "datagram": 0}
    assert proxy.flow_count == 0
    assert proxy.settings is QUIET
    assert proxy.take_actions() == Actions()
    assert all(proxy.wants(side) for side in (CLIENT, PRIMARY, SECONDARY))


@pytest.mark.parametrize("mode", [OBSERVE, BYPASS])
def test_other_modes_start_without_a_request(mode: str) -> None:
    proxy = Proxy(dataclasses.replace(QUIET, mode=mode), 0.0)
    proxy.start(0.0)
    assert (proxy.take_actions().requests, proxy.protected) == ([], False)


def test_what_is_received_is_counted_by_side_kind_and_reason(play: Playbook) -> None:
    c, p, s = play.datagrams()
    before = play.proxy.counters.snapshot()["received"]
    assert before == {"client": 0, "primary": 0, "secondary": 0}
    play.client(c.datagram(b"?"))
    play.both(p.datagram(b"!"), s.datagram(b"!"))
    arp = p.arp()
    play.primary(arp, releases=[arp])
    counters = play.proxy.counters
    assert counters.received == [1, 2, 1]
    assert counters.kinds[1] == 3
    assert counters.opaque[OPAQUE_REASONS.index("arp")] == 1
    assert counters.received_bytes[CLIENT] == len(c.datagram(b"?").data)


def test_every_secondary_frame_has_a_fate(play: Playbook) -> None:
    _, p, s = play.datagrams()
    play.both(p.datagram(b"same"), s.datagram(b"same"))
    play.secondary(s.datagram(b"alone"))
    assert (play.proxy.counters.secondary["compared"], play.proxy.counters.received[SECONDARY]) == (1, 2)
    play.secondary(s.opaque(0x88CC, bytes(46)))
    play.checkpoint()
    counters = play.proxy.counters
    assert sum(counters.secondary.values()) == counters.received[SECONDARY] == 3


def test_what_is_held(play: Playbook) -> None:
    _, p, _ = play.connection()
    one, two = p.data(b"one"), p.data(b"two")
    play.primary(one)
    play.after(1.0)
    play.primary(two)
    assert play.proxy.oldest_held(play.now + 0.5) == pytest.approx(1.5)
    assert (play.proxy.held_frames, play.proxy.held_bytes) == (2, len(one.data) + len(two.data))
    assert (play.proxy.flows()["established"], play.proxy.flow_count) == (1, 1)
    play.request(requests=["operator"])
    play.pause()
    three = p.data(b"three")
    play.primary(three)
    assert play.proxy.held_bytes == len(one.data) + len(two.data) + len(three.data)
    play.commit(releases=[one, two])


def test_observe_holds_nothing() -> None:
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE))
    _, p, _ = play.datagrams()
    frame = p.datagram(b"x")
    play.primary(frame, releases=[frame])
    assert (play.proxy.held_frames, play.proxy.held_bytes, play.proxy.oldest_held(play.now)) == (0, 0, 0.0)
    play.after(10.0)


def test_a_client_that_waits(play: Playbook) -> None:
    c, _, _ = play.connection()
    play.request(requests=["operator"])
    play.client(c.data(b"x"), held=True)
    assert play.proxy.client_waiting == 1
    play.pause()
    play.commit()
    assert play.proxy.client_waiting == 0


def test_pushing_the_client_back() -> None:
    play = Playbook(dataclasses.replace(QUIET, max_held_frames=2))
    c, _, _ = play.connection()
    play.request(requests=["operator"])
    play.client(c.data(b"x"), held=True)
    assert play.proxy.wants(CLIENT)
    play.client(c.data(b"x"), held=True)
    assert not play.proxy.wants(CLIENT)


def test_pushing_back_by_bytes() -> None:
    play = Playbook(dataclasses.replace(QUIET, max_held_bytes=500))
    c, p, _ = play.connection()
    play.primary(p.data(bytes(600)), requests=["pressure"])
    assert not play.proxy.wants(PRIMARY)
    play.client(c.data(bytes(600)), held=True)
    assert not play.proxy.wants(CLIENT)
    assert play.proxy.wants(SECONDARY)


# Time


def test_the_timer_that_is_next(play: Playbook) -> None:
    _, p, s = play.datagrams()
    start = play.now
    assert play.proxy.next_timer() == start + 1.0  # the regular look at what has grown old
    play.primary(p.datagram(b"a"))
    play.secondary(s.datagram(b"b"))
    assert play.proxy.next_timer() == pytest.approx(start + QUIET.datagram_window)


def test_the_time_out_of_a_checkpoint() -> None:
    play = Playbook(dataclasses.replace(QUIET, checkpoint_timeout=0.5))
    play.request(requests=["operator"])
    assert play.proxy.next_timer() == play.now + 0.5
    play.becomes_solo()
    play.after(0.6)
    assert play.proxy.counters.checkpoints["timed_out"] == 1
    assert play.proxy.mode == SOLO
    assert play.proxy.next_timer() > play.now


def test_a_timer_that_comes_early_or_late_does_no_harm(play: Playbook) -> None:
    _, p, _ = play.connection()
    play.primary(p.data(b"x"))
    for _ in range(3):
        play.proxy.handle_timer(play.now)
        play.quiet()
    play.proxy.handle_timer(play.now + 100.0)
    assert [request.reasons for request in play.proxy.take_actions().requests] == [("timeout",)]


def test_a_late_frame_asks_once(play: Playbook) -> None:
    _, p, _ = play.connection()
    play.primary(p.data(b"x"), p.data(b"y"))
    play.after(3.1, requests=["timeout"])
    play.fail()
    play.after(0.6, requests=["timeout"])
    assert play.proxy.counters.divergences["timeout"] == 1


def test_a_late_frame_of_a_reset_connection_asks_for_nothing_and_the_next_one_does(play: Playbook) -> None:
    c, p, _ = play.connection()
    play.primary(p.data(b"x"))
    play.client(c.segment(RST))
    _, other, _ = play.connection(client_port=2)
    play.primary(other.data(b"y"))
    play.after(4.0, requests=["timeout"])
    assert play.proxy.counters.divergences["timeout"] == 1


def test_observe_gives_up_what_is_late_one_flow_after_the_other() -> None:
    play = Playbook(dataclasses.replace(QUIET, mode=OBSERVE))
    _, p, _ = play.datagrams(client_port=1)
    _, p2, _ = play.datagrams(client_port=2)
    frames = [p.datagram(b"x"), p2.datagram(b"y"), p.datagram(b"z")]
    play.primary(*frames, releases=frames)
    play.after(4.0)
    assert play.proxy.counters.divergences["timeout"] == 2


# Reports


def test_a_backend_that_begins_twice_gets_the_same_epoch(play: Playbook) -> None:
    assert play.begun() == 2
    assert play.begun() == 2
    play.pause()
    play.commit()
    assert play.proxy.counters.requests["backend"] == 1


def test_begun_in_another_mode_is_only_told_a_number(play: Playbook) -> None:
    play.lose_secondary()
    assert play.begun() == 2
    assert play.proxy.checkpoint_state == "comparing"


def test_a_load_before_the_pause_pauses(play: Playbook) -> None:
    """The secondary has the state, so the primary has stopped."""
    _, p, _ = play.connection()
    play.request(requests=["operator"])
    play.snapshot()
    play.load()
    assert play.proxy.checkpoint_state == "paused"
    play.commit(loaded=True)
    play.primary(p.data(b"x"))


def test_a_report_that_nobody_waits_for(play: Playbook) -> None:
    for report in (play.proxy.paused, play.proxy.loaded, play.proxy.committed):
        report(2, play.now)
    play.proxy.failed(2, "", True, play.now)
    play.quiet()
    assert (play.proxy.epoch, play.proxy.checkpoint_state) == (1, "comparing")


def test_pausing_twice(play: Playbook) -> None:
    play.request(requests=["operator"])
    play.pause()
    play.pause()
    play.commit()


def test_the_secondary_lost_twice_is_lost_once(play: Playbook) -> None:
    play.lose_secondary()
    play.lose_secondary()
    assert play.proxy.counters.secondaries_lost == 1


def test_promotion_and_protection(play: Playbook) -> None:
    _, p, s = play.datagrams()
    held = p.datagram(b"held")
    play.primary(held)
    play.promote(discards=[held], announced=False)
    assert (play.proxy.mode, play.proxy.protected, play.proxy.counters.promotions) == (SOLO, False, 1)
    (new,) = play.protect_again()
    assert (play.proxy.mode, play.proxy.protected) == (PROTECT, True)
    play.both(s.datagram(b"x"), new.datagram(b"x"))


def test_a_guest_that_went_on_unheard() -> None:
    """Between QEMU's filters one that took over speaks past the proxy, until it has a new secondary."""
    play = Playbook(dataclasses.replace(QUIET, mirror=False, rewrite=False))
    _, p, s = play.tcp(secondary_isn=10_000, secondary_clock=0)
    play.both(p.syn_ack(ack=1), s.syn_ack(ack=1))
    play.both(p.data(b"one", ack=8), s.data(b"one", ack=8))
    play.promote()
    play.forget(s.data(b"said to the client alone"))
    play.proxy.forget_flows(play.now)
    assert play.proxy.flow_count == 0
    (new,) = play.protect_again()
    play.both(s.data(b"two"), new.data(b"two"))


# Modes and settings


def test_modes_by_an_operator(play: Playbook) -> None:
    play.set_mode(PROTECT)
    play.set_mode(OBSERVE)
    assert not play.proxy.protected
    play.set_mode(BYPASS)
    play.set_mode(PROTECT, requests=["startup"])


def test_new_settings(play: Playbook) -> None:
    changed = dataclasses.replace(
        QUIET, mode=OBSERVE, mirror=False, rewrite=False, copies_state=False, reports_pause=False, max_flows=7
    )
    play.apply(changed)
    assert play.proxy.settings == dataclasses.replace(QUIET, max_flows=7)
    play.apply(dataclasses.replace(QUIET, max_interval=0.5))
    play.after(0.6, requests=["periodic"])


def test_the_same_input_gives_the_same_output() -> None:
    def run() -> list[Actions]:
        proxy = Proxy(QUIET, 0.0)
        play = Playbook(QUIET)
        c, p, s = play.tcp()
        actions = []
        for side, packet in (
            (CLIENT, c.syn()),
            (PRIMARY, p.syn_ack()),
            (SECONDARY, s.syn_ack()),
            (CLIENT, c.ack()),
        ):
            proxy.receive(side, [parse_frame(packet.data, 0, side == CLIENT)], 1.0)
            actions.append(proxy.take_actions())
        return actions

    for one, two in zip(run(), run(), strict=True):
        assert [frame.data for frame in one.to_client] == [frame.data for frame in two.to_client]
        assert [frame.data for frame in one.to_secondary] == [frame.data for frame in two.to_secondary]


def test_a_checkpoint_that_cannot_begin_yet_has_its_time_from_when_it_can() -> None:
    proxy = Proxy(QUIET, 0.0)
    proxy.start(0.0)
    proxy.postpone(1, 9.0)
    assert proxy.next_timer() <= 9.0 + QUIET.checkpoint_timeout
    proxy.handle_timer(18.9)
    assert proxy.checkpoint_state == "requested"
    proxy.postpone(2, 18.9)  # of another checkpoint
    proxy.handle_timer(19.0)
    assert (proxy.mode, proxy.checkpoint_state) == (SOLO, "comparing")
    proxy.postpone(1, 20.0)
    assert proxy.mode == SOLO
