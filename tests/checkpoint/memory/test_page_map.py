import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_compare.checkpoint.memory.backlog import Backlog
from colo_compare.checkpoint.memory.page_map import PageMap, Run, count_pages

PAGES = 40
RUNS = st.lists(
    st.tuples(st.integers(0, PAGES - 1), st.integers(1, PAGES)).map(lambda r: (r[0], min(r[1], PAGES - r[0])))
)


def pages(runs: list[Run]) -> set[int]:
    return {page for first, count in runs for page in range(first, first + count)}


@given(added=RUNS, removed=RUNS)
def test_it_is_a_set_of_pages(added: list[Run], removed: list[Run]) -> None:
    found = PageMap(PAGES)
    found.add(added)
    found.discard(removed)
    expected = pages(added) - pages(removed)
    assert pages(found.runs()) == expected
    assert len(found) == count_pages(found.runs()) == len(expected)
    assert bool(found) == bool(expected)
    assert [page in found for page in range(PAGES)] == [page in expected for page in range(PAGES)]
    assert all(sum(one) < other[0] for one, other in zip(found.runs(), found.runs()[1:], strict=False))
    found.clear()
    assert not found


@pytest.mark.parametrize("run", [(-1, 1), (PAGES, 1), (0, PAGES + 1), (3, 0)])
def test_pages_that_are_not_there_are_refused(run: Run) -> None:
    with pytest.raises(IndexError, match="are not in a memory of 40"):
        PageMap(PAGES).add([run])


def test_a_backlog_begins_with_everything() -> None:
    assert Backlog(PAGES).take_all() == [(0, PAGES)]


def test_pages_that_were_just_written_are_not_quiet() -> None:
    backlog = Backlog(PAGES)
    backlog.take_all()
    backlog.note([(3, 2)])
    assert backlog.take_quiet(10) == []
    backlog.note([(4, 2)])
    assert backlog.take_quiet(10) == [(3, 1)]
    backlog.note([])
    assert backlog.take_quiet(10) == [(4, 2)]
    assert len(backlog) == 0


def test_quiet_pages_are_taken_round_the_memory_up_to_the_limit() -> None:
    backlog = Backlog(PAGES)
    backlog.note([])
    assert backlog.take_quiet(30) == [(0, 30)]
    backlog.put_back([(0, 2)])
    assert backlog.take_quiet(5) == [(30, 5)]
    assert backlog.take_quiet(5) == [(35, 5)]
    assert backlog.take_quiet(5) == [(0, 2)]
    assert backlog.take_all() == []


def test_runs_are_divided_by_what_is_in_it() -> None:
    pages = PageMap(20)
    pages.add([(3, 2), (10, 5)])
    assert pages.divide([(0, 12), (14, 6), (4, 1)]) == (
        [(3, 2), (10, 2), (14, 1), (4, 1)],
        [(0, 3), (5, 5), (15, 5)],
    )
    assert pages.divide([]) == ([], [])
