from hypothesis import given
from hypothesis import strategies as st

from colo_compare.core.hold import Flow, Held, HoldQueue
from colo_compare.wire.frame import Frame

FLOW = Flow(b"key", 0.0)


def held(size: int, *more: int) -> Held:
    fragments = [Frame(bytes(length), 0) for length in more]
    return Held(FLOW, Frame(bytes(size), 0), fragments or None, 1.5)


def test_a_flow_begins_open_and_empty() -> None:
    flow = Flow(b"key", 7.0)
    assert (flow.key, flow.blocked, flow.last_seen) == (b"key", False, 7.0)


def test_what_a_held_frame_counts() -> None:
    assert (held(10).count(), held(10).size()) == (1, 10)
    assert (held(10, 20, 30).count(), held(10, 20, 30).size()) == (3, 60)


def test_totals_and_order() -> None:
    queue = HoldQueue()
    assert queue.oldest() is None
    one, two, three = held(1), held(2, 3), held(4)
    for entry in (one, two, three):
        queue.add(entry)
    assert [entry.number for entry in (one, two, three)] == [1, 2, 3]
    assert (queue.frames, queue.bytes, queue.oldest(), queue.entries()) == (4, 10, one, [one, two, three])
    queue.remove(two)
    assert (queue.frames, queue.bytes, queue.oldest(), queue.entries()) == (2, 5, one, [one, three])
    queue.remove(one)
    assert (queue.oldest(), queue.entries()) == (three, [three])
    queue.remove(three)
    assert (queue.frames, queue.bytes, queue.oldest(), queue.entries()) == (0, 0, None, [])


def test_a_frame_of_which_a_part_is_gone() -> None:
    queue = HoldQueue()
    entry = held(100)
    queue.add(entry)
    rest = Frame(bytes(60), 0)
    queue.shrink(entry, rest)
    assert (queue.bytes, queue.frames, entry.frame) == (60, 1, rest)
    queue.remove(entry)
    assert queue.bytes == 0


def test_clearing() -> None:
    queue = HoldQueue()
    entries = [held(1) for _ in range(3)]
    for entry in entries:
        queue.add(entry)
    queue.remove(entries[1])
    queue.clear()
    assert all(entry.done for entry in entries)
    assert (queue.frames, queue.bytes, queue.oldest(), queue.entries()) == (0, 0, None, [])


@given(st.permutations(range(300)))
def test_any_order_of_removal(order: list[int]) -> None:
    """Also when so many are dead that the queue is swept."""
    queue = HoldQueue()
    entries = [held(size) for size in range(300)]
    for entry in entries:
        queue.add(entry)
    left = list(entries)
    for index in order:
        queue.remove(entries[index])
        left.remove(entries[index])
        assert queue.oldest() is (left[0] if left else None)
    assert (queue.frames, queue.bytes) == (0, 0)


def test_a_sweep_keeps_what_waits() -> None:
    queue = HoldQueue()
    entries = [held(1) for _ in range(200)]
    for entry in entries:
        queue.add(entry)
    for entry in entries[1:150]:
        queue.remove(entry)
    assert queue.entries() == [entries[0], *entries[150:]]
    assert queue.frames == 51
