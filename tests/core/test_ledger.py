import pytest

from colo_compare.core.actions import NOTHING, Actions, CheckpointRequest, Divergence, Evidence
from colo_compare.core.counters import COVERED, MATCHED, SUPERSEDED
from colo_compare.core.hold import Flow, Held
from colo_compare.core.ledger import Ledger
from colo_compare.core.settings import BLOCK, BYPASS, OBSERVE, PROTECT, SOLO, Settings
from colo_compare.wire.frame import Frame, parse_frame
from tests.conversation import Clock, Conversation

FLOW = Flow(b"", 0.0)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(Settings(max_held_frames=3), 10.0)


def frame(size: int = 60) -> Frame:
    return Frame(bytes(size), 0)


def hold(ledger: Ledger, *more: Frame, passed: bool = False) -> Held:
    held = Held(FLOW, frame(), list(more) or None, ledger.now)
    held.passed = passed
    ledger.hold(held)
    return held


@pytest.mark.parametrize(
    ("mode", "has_secondary", "holding"),
    [
        (PROTECT, True, True),
        (OBSERVE, True, False),
        (SOLO, False, False),
        (BLOCK, False, True),
        (BYPASS, False, False),
    ],
)
def test_what_the_modes_mean(ledger: Ledger, mode: str, has_secondary: bool, holding: bool) -> None:
    ledger.mode = mode
    assert (ledger.has_secondary(), ledger.holding()) == (has_secondary, holding)


def test_frames_leave_in_order_for_each_side(ledger: Ledger) -> None:
    one, two, three, four, own = (frame() for _ in range(5))
    ledger.send_client(one, MATCHED)
    ledger.send_own(own)
    ledger.send_client(two, COVERED)
    ledger.send_primary(three)
    ledger.send_secondary(four)
    actions = ledger.take()
    assert (actions.to_client, actions.to_primary, actions.to_secondary) == ([one, own, two], [three], [four])
    assert (ledger.counters.released[MATCHED], ledger.counters.released[COVERED]) == (1, 1)
    assert (ledger.counters.released_bytes, ledger.counters.mirrored) == (120, 1)
    assert ledger.take() == Actions()


def test_a_held_frame_goes_with_its_fragments(ledger: Ledger) -> None:
    second = frame(20)
    held = hold(ledger, second)
    assert (ledger.holds.frames, ledger.holds.bytes) == (2, 80)
    ledger.now = 12.0
    out = frame()
    ledger.released(held, out, MATCHED)
    actions = ledger.take()
    assert actions.to_client == [out, second]
    assert actions.waits == [2.0]
    assert ledger.counters.released[MATCHED] == 2
    assert (ledger.counters.hold_time.sum, ledger.counters.hold_time.total()) == (2.0, 1)
    assert ledger.holds.frames == 0


def test_what_has_passed_is_not_sent_twice(ledger: Ledger) -> None:
    held = hold(ledger, passed=True)
    ledger.released(held, held.frame, MATCHED)
    assert ledger.take().to_client == []
    other = hold(ledger, passed=True)
    ledger.discard(other, SUPERSEDED)
    assert ledger.counters.discarded_total() == 0


def test_discards(ledger: Ledger) -> None:
    one = hold(ledger, frame())
    ledger.discard(one, SUPERSEDED)
    assert ledger.counters.discarded[SUPERSEDED] == 2
    hold(ledger)
    hold(ledger, passed=True)
    assert ledger.discard_all() == 1
    assert ledger.counters.discarded["failover"] == 1
    assert ledger.holds.frames == 0


def test_pressure(ledger: Ledger) -> None:
    hold(ledger)
    hold(ledger)
    assert ledger.epochs.wanted == []
    hold(ledger)
    assert ledger.epochs.wanted == ["pressure"]
    assert ledger.counters.requests["pressure"] == 1


def test_pressure_of_bytes() -> None:
    ledger = Ledger(Settings(max_held_bytes=100), 0.0)
    hold(ledger)
    hold(ledger)
    assert ledger.epochs.wanted == ["pressure"]


def test_under_pressure_observe_compares_less(ledger: Ledger) -> None:
    ledger.mode = OBSERVE
    first, second, third = (hold(ledger, passed=True) for _ in range(3))
    assert first.done
    assert ledger.holds.entries() == [second, third]
    assert ledger.epochs.wanted == []


def test_only_protect_asks_for_checkpoints(ledger: Ledger) -> None:
    ledger.mode = SOLO
    ledger.want_checkpoint("operator", "")
    assert (ledger.epochs.wanted, ledger.counters.requests["operator"]) == ([], 0)


def test_a_reason_counts_once_for_each_checkpoint(ledger: Ledger) -> None:
    ledger.want_checkpoint("operator", "")
    ledger.want_checkpoint("operator", "")
    assert ledger.counters.requests["operator"] == 1


def test_a_divergence_is_told_and_asks(ledger: Ledger) -> None:
    talk = Conversation(Clock(0.0))
    key = parse_frame(talk.primary.datagram(b"").data, 0, False).key
    ledger.diverged(key, "payload", 5, b"ours", b"theirs")
    ledger.diverged(key, "payload", 6, b"", b"")
    one, two = ledger.take().events
    flow = "udp 10.0.0.2:80 - 10.0.0.1:40000"
    assert one == Divergence(10.0, 1, 0, flow, "payload", 5, b"ours", b"theirs")
    assert isinstance(two, Divergence)
    assert two.id == 2
    assert (one.ours, one.theirs) == (NOTHING, NOTHING)
    assert (ledger.epochs.wanted, ledger.epochs.wanted_flow) == (["payload"], flow)
    assert (ledger.counters.divergences["payload"], ledger.counters.requests["payload"]) == (2, 1)


def test_a_frame_that_is_overdue_asks_once(ledger: Ledger) -> None:
    talk = Conversation(Clock(0.0))
    parsed = parse_frame(talk.primary.datagram(b"late").data, 0, False)
    held = Held(Flow(parsed.key, 0.0), parsed, None, 0.0)
    ledger.hold(held)
    ledger.overdue(held)
    assert held.late
    (event,) = ledger.take().events
    assert isinstance(event, Divergence)
    assert (event.reason, event.primary, event.secondary) == ("timeout", b"late", b"")
    assert (event.ours, event.theirs) == (Evidence(parsed.data, parsed.payload, 0.0), NOTHING)


def test_a_request_goes_to_the_backend(ledger: Ledger) -> None:
    request = CheckpointRequest(1, ("startup",), "")
    ledger.request(request)
    assert ledger.take().requests == [request]


def test_a_single_frame_goes_alone(ledger: Ledger) -> None:
    held = hold(ledger)
    ledger.released(held, held.frame, MATCHED)
    assert ledger.take().to_client == [held.frame]


def test_what_was_for_the_secondary_follows_it_when_it_is_promoted(ledger: Ledger) -> None:
    one, two = frame(), frame()
    ledger.send_secondary(one)
    ledger.send_primary(two)
    ledger.turn_to_primary()
    actions = ledger.take()
    assert (actions.to_primary, actions.to_secondary) == ([two, one], [])


def test_what_is_counted_on_the_side_is_entered_with_the_actions(ledger: Ledger) -> None:
    ledger.compared(5)
    ledger.compared(2)
    ledger.take()
    assert ledger.counters.compared_bytes == 7
