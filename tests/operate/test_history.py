import trio
from trio.testing import wait_all_tasks_blocked

from colo_compare.core.actions import CheckpointAborted, ModeChanged
from colo_compare.operate.history import KEPT, EventHistory


def history() -> EventHistory:
    return EventHistory(lambda: 1_800_000_000.5)


def test_events_are_numbered_and_timed() -> None:
    events = history()
    assert events.since(0) == []
    events.note(ModeChanged(3.0, "protect", "solo", "why"))
    events.note(CheckpointAborted(4.0, 2, "no answer"))
    first, second = events.since(0)
    assert first.pop("time") == second.pop("time") == 1_800_000_000.5
    assert first == {"number": 1, "event": "ModeChanged", "old": "protect", "new": "solo", "why": "why"}
    assert second == {"number": 2, "event": "CheckpointAborted", "epoch": 2, "detail": "no answer"}
    assert [event["number"] for event in events.since(1)] == [2]
    assert events.since(2) == []
    assert events.since(9) == []


def test_only_so_many_are_kept() -> None:
    events = history()
    for _ in range(KEPT + 10):
        events.note(CheckpointAborted(4.0, 2, ""))
    assert [event["number"] for event in events.since(0)][:: KEPT - 1] == [11, KEPT + 10]


async def test_following_gives_what_there_is_and_what_comes(nursery: trio.Nursery) -> None:
    events = history()
    seen: list[object] = []

    async def follow(number: int) -> None:
        async for event in events.follow(number):
            seen.append(event.get("number", event))

    events.note(CheckpointAborted(4.0, 2, ""))
    nursery.start_soon(follow, 0)
    await wait_all_tasks_blocked()
    assert seen == [1]
    for _ in range(3):
        events.note(CheckpointAborted(4.0, 2, ""))
    await wait_all_tasks_blocked()
    assert seen == [1, 2, 3, 4]


async def test_who_is_too_slow_is_told_what_was_missed() -> None:
    events = history()
    following = events.follow(0)
    events.note(CheckpointAborted(4.0, 2, ""))
    assert (await anext(following))["number"] == 1
    for _ in range(KEPT + 5):
        events.note(CheckpointAborted(4.0, 2, ""))
    assert await anext(following) == {"event": "Missed", "events": 5}
    assert (await anext(following))["number"] == 7
    await following.aclose()
