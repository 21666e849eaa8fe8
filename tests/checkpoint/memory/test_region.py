"""Sparse memory stays sparse."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from colo_compare.checkpoint.memory.region import PAGE_SIZE, Region

PAGES = 1000


@pytest.fixture
def region() -> Iterator[Region]:
    region = Region.create(PAGES * PAGE_SIZE)
    yield region
    region.close()


def pages_held(region: Region) -> int:
    return os.fstat(region.descriptor).st_blocks * 512 // PAGE_SIZE


def write(region: Region, first: int, count: int) -> None:
    region.view[first * PAGE_SIZE : (first + count) * PAGE_SIZE] = b"x" * count * PAGE_SIZE


def test_holes_are_found_and_stay_holes(region: Region) -> None:
    assert region.holes() == [(0, PAGES)]
    write(region, 10, 5)
    write(region, 500, 1)
    assert region.holes() == [(0, 10), (15, 485), (501, 499)]
    write(region, PAGES - 1, 1)
    assert region.holes()[-1] == (501, PAGES - 502)
    assert pages_held(region) == 7
    write(region, 0, PAGES)
    assert region.holes() == []


@pytest.mark.parametrize(("count", "left"), [(4, 200), (100, 100)], ids=["few", "many"])
def test_clearing_gives_much_memory_back(region: Region, count: int, left: int) -> None:
    write(region, 100, 200)
    region.clear(150, count)
    zeros = region.view[150 * PAGE_SIZE : (150 + count) * PAGE_SIZE]
    assert pages_held(region) == left
    assert not any(zeros.tobytes())
    assert region.view[149 * PAGE_SIZE] == region.view[(150 + count) * PAGE_SIZE] == ord("x")


def test_clearing_a_hole_makes_no_memory(region: Region) -> None:
    region.clear(0, PAGES)
    assert pages_held(region) == 0


def test_a_file_may_be_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_bytes(b"x" * 20 * PAGE_SIZE)
    region = Region(os.open(path, os.O_RDWR), 20 * PAGE_SIZE)
    region.clear(1, 18)
    assert region.view[0] == region.view[19 * PAGE_SIZE] == ord("x")
    assert not any(region.view[PAGE_SIZE : 19 * PAGE_SIZE].tobytes())
    region.close()
