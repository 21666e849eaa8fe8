"""Trackers on real memory: the page table's on this kernel, where it can."""

import os
from collections.abc import Iterator

import pytest

from colo_compare.checkpoint.memory.region import PAGE_SIZE, Region
from colo_compare.checkpoint.memory.tracker_compare import CompareTracker
from colo_compare.checkpoint.memory.tracker_pagemap import PagemapTracker, WriteProtection
from colo_compare.errors import CheckpointerError

PAGES = 9000  # more runs than one scan gives


@pytest.fixture
def region() -> Iterator[Region]:
    region = Region.create(PAGES * PAGE_SIZE)
    yield region
    region.close()


@pytest.fixture
def pagemap(region: Region) -> Iterator[PagemapTracker]:
    try:
        protection = WriteProtection(region)
    except CheckpointerError as error:
        pytest.skip(str(error))
    tracker = PagemapTracker(os.dup(protection.pagemap), region.address, region.size)
    yield tracker
    tracker.close()
    protection.close()


def touch(region: Region, *pages: int) -> None:
    for page in pages:
        region.view[page * PAGE_SIZE + 5] ^= 1


def test_the_page_table_tells_each_write_once(region: Region, pagemap: PagemapTracker) -> None:
    assert pagemap.look() == []
    touch(region, 3, 4, 5, 100, PAGES - 1)
    assert pagemap.look() == [(3, 3), (100, 1), (PAGES - 1, 1)]
    assert pagemap.look() == []
    touch(region, 4)
    assert pagemap.look() == [(4, 1)]
    assert region.view[0] == 0  # reading is no writing
    assert pagemap.look() == []


def test_more_runs_than_one_scan_gives(region: Region, pagemap: PagemapTracker) -> None:
    touch(region, *range(0, PAGES, 2))
    assert pagemap.look() == [(page, 1) for page in range(0, PAGES, 2)]
    assert pagemap.look() == []


def test_the_kernel_writing_for_the_guest_counts(region: Region, pagemap: PagemapTracker) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"from outside")
    os.readv(reading, [region.view[7 * PAGE_SIZE : 8 * PAGE_SIZE]])
    os.close(reading)
    os.close(writing)
    assert pagemap.look() == [(7, 1)]


def test_a_write_through_another_mapping_is_not_the_guests(region: Region, pagemap: PagemapTracker) -> None:
    other = Region(os.dup(region.descriptor), region.size)
    touch(other, 3)
    other.close()
    assert pagemap.look() == []


def test_what_was_given_back_and_written_again_counts(region: Region, pagemap: PagemapTracker) -> None:
    touch(region, *range(100, 200))
    pagemap.look()
    region.clear(100, 100)
    pagemap.look()
    touch(region, 150)
    assert (150, 1) in pagemap.look()
    assert pagemap.look() == []


def test_memory_that_is_not_protected_is_told(region: Region) -> None:
    with pytest.raises(CheckpointerError, match="is not protected"):
        PagemapTracker(os.open("/proc/self/pagemap", os.O_RDONLY), region.address, region.size)


def test_comparing_with_a_copy_of_its_own(region: Region) -> None:
    touch(region, 1)
    tracker = CompareTracker(region, Region.create(region.size), follow=True)
    assert tracker.look() == []
    touch(region, 3, 4, 5, 100, PAGES - 1)
    assert tracker.look() == [(3, 3), (100, 1), (PAGES - 1, 1)]
    assert tracker.look() == []
    touch(region, 15, 16)  # on both sides of a block's end
    assert tracker.look() == [(15, 2)]
    tracker.close()


def test_a_copy_follows_what_is_given_back(region: Region) -> None:
    copy = Region.create(region.size)
    tracker = CompareTracker(region, copy, follow=True)
    touch(region, *range(100, 200))
    assert tracker.look() == [(100, 100)]
    region.clear(100, 50)
    assert tracker.look() == [(100, 50)]
    assert tracker.look() == []
    assert os.fstat(copy.descriptor).st_blocks * 512 == 50 * PAGE_SIZE
    tracker.close()


def test_holes_and_zeros_are_equal(region: Region) -> None:
    other = Region.create(region.size)
    touch(region, 3, 4)
    region.clear(3, 1)  # too short for a hole
    touch(other, 7, 8)
    other.clear(8, 1)
    tracker = CompareTracker(region, other, follow=False)
    assert tracker.look() == [(4, 1), (7, 1)]
    tracker.close()
    other.close()


def test_comparing_with_the_cache_does_not_change_it(region: Region) -> None:
    cache = Region.create(region.size)
    tracker = CompareTracker(region, cache, follow=False)
    touch(region, 3)
    touch(cache, 8)
    assert tracker.look() == tracker.look() == [(3, 1), (8, 1)]
    tracker.close()
    cache.close()


@pytest.mark.parametrize("size", [0, PAGE_SIZE + 1, 2 * PAGE_SIZE])
def test_memory_that_cannot_be_shared_is_refused(size: int) -> None:
    descriptor = os.memfd_create("one page")
    os.ftruncate(descriptor, PAGE_SIZE)
    with pytest.raises(CheckpointerError, match="cannot be shared"):
        Region(descriptor, size)
