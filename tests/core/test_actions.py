from colo_compare.core.actions import Actions, CheckpointRequest, CheckpointRequested, Event


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
