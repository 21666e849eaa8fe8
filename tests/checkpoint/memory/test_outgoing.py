"""What goes out on which channel. The conversation as a whole is in test_session.py."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from colo_compare.checkpoint.memory.messages import BATCH_PAGES
from colo_compare.checkpoint.memory.outgoing import Outgoing, split_zeros, striped
from colo_compare.checkpoint.memory.page_map import PageMap, Run

SIZE = 8  # bytes in a page
PAGE_KINDS = [bytes(SIZE), bytes(SIZE - 1) + b"x", b"x" * SIZE]


@given(pages=st.lists(st.sampled_from(PAGE_KINDS), min_size=1, max_size=30), data=st.data())
def test_runs_are_cut_where_zeros_begin_and_end(pages: list[bytes], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(pages) - 1))
    count = data.draw(st.integers(1, len(pages) - first))
    parts = list(split_zeros(iter([(first, count)]), memoryview(b"".join(pages)), SIZE))
    found = [(page, zero) for start, length, zero in parts for page in range(start, start + length)]
    assert found == [(page, pages[page] == bytes(SIZE)) for page in range(first, first + count)]
    assert all(one[2] != other[2] for one, other in pairwise(parts))


@given(
    channels=st.integers(1, 5),
    runs=st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 700)), max_size=4),
)
def test_each_page_goes_out_once_and_always_on_the_same_channel(channels: int, runs: list[Run]) -> None:
    pages = PageMap(3000)
    pages.add(runs)
    seen: dict[int, int] = {}
    for channel in range(channels):
        for first, count in striped(pages.runs(), channel, channels):
            assert count <= BATCH_PAGES
            for page in range(first, first + count):
                assert page not in seen
                seen[page] = channel
    assert len(seen) == len(pages)
    for channel in range(channels):
        for first, _ in striped([(page, 1) for page in sorted(seen)], channel, channels):
            assert seen[first] == channel


def test_scattered_pages_share_messages() -> None:
    memory = memoryview(bytearray(b"x" * (1000 * SIZE)))
    outgoing = Outgoing(b"s" * 16, channels=1, page_size=SIZE, size=1000 * SIZE, timeout=1.0, now=0.0)
    scattered = [(page, 1) for page in range(0, 1000, 2)]
    messages = list(outgoing.batches(0, scattered, memory, copy=False))
    assert [len(message.runs) for message in messages] == [BATCH_PAGES, 500 - BATCH_PAGES]
    assert [run for message in messages for run in message.runs] == scattered


def test_a_copy_does_not_change_with_the_memory() -> None:
    memory = memoryview(bytearray(b"x" * SIZE))
    outgoing = Outgoing(b"s" * 16, channels=1, page_size=SIZE, size=SIZE, timeout=1.0, now=0.0)
    (copied,) = outgoing.batches(0, [(0, 1)], memory, copy=True)
    (shared,) = outgoing.batches(0, [(0, 1)], memory, copy=False)
    memory[:] = b"y" * SIZE
    assert (bytes(copied.data[0]), bytes(shared.data[0])) == (b"x" * SIZE, b"y" * SIZE)
