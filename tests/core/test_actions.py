from colo_compare.core.actions import (
    NOTHING,
    Actions,
    CheckpointRequest,
    CheckpointRequested,
    Divergence,
    Event,
)


def test_actions_begin_empty_and_share_nothing() -> None:
    one, two = Actions(), Actions()
    assert one == two
    one.requests.append(CheckpointRequest(1, ("startup",), ""))
    assert two.requests == []


def test_an_event_knows_its_time() -> None:
    request = CheckpointRequest(2, ("payload", "timeout"), "tcp")
    event: Event = CheckpointRequested(3.5, request)
    assert event.at == 3.5
    assert event == CheckpointRequested(3.5, CheckpointRequest(2, ("payload", "timeout"), "tcp"))


def test_a_divergence_without_frames_says_so() -> None:
    event = Divergence(1.0, 1, 0, "tcp", "unknown_flow", 0, b"", b"")
    assert event.ours == event.theirs == NOTHING
    assert NOTHING.data == b""
