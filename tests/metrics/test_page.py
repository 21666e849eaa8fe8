import threading
import time
from collections.abc import Callable, Iterator

import pytest
import trio
from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from trio.testing import MockClock, wait_all_tasks_blocked

from colo_compare.metrics import OPENMETRICS, TEXT, LoopCollector, MetricsPage
from colo_compare.metrics.page import FRESH, render
from colo_compare.metrics.snapshot import take_snapshot
from tests.rig import Rig

LIMIT = 0.001  # seconds: no frame may wait for a scrape for longer


class Few(Collector):
    """A collector of two families, which a test can hold up."""

    def __init__(self) -> None:
        self.taken = 0
        self.made = 0
        self.gate = threading.Event()
        self.gate.set()

    def take(self) -> None:
        self.taken += 1

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        self.made += 1
        taken = self.taken
        self.gate.wait()
        yield GaugeMetricFamily("taken", "Snapshots.", taken)
        family = CounterMetricFamily("divergences", "Divergences.", labels=["reason"])
        family.add_metric(["payload"], 4, exemplar=Exemplar({"divergence_id": "4"}, 1.0, 123.5))
        yield family


@pytest.fixture
def few() -> Few:
    return Few()


@pytest.fixture
def page(few: Few) -> MetricsPage:
    registry = CollectorRegistry()
    registry.register(few)
    return MetricsPage(registry, few.take)


@pytest.mark.parametrize(
    ("content_type", "whole"), [(TEXT, generate_latest), (OPENMETRICS, generate_openmetrics)]
)
async def test_a_page_in_parts_is_the_same_page(
    page: MetricsPage, few: Few, content_type: str, whole: Callable[[Collector], bytes]
) -> None:
    assert await page.get(content_type) == whole(few)


async def test_openmetrics_has_the_exemplars(page: MetricsPage) -> None:
    text = (await page.get(OPENMETRICS)).decode()
    parse: Callable[[str], Iterator[Metric]] = text_string_to_metric_families
    (family,) = [family for family in parse(text) if family.name == "divergences"]
    (sample,) = family.samples
    assert sample.exemplar is not None
    assert sample.exemplar.labels == {"divergence_id": "4"}
    assert b"divergence_id" not in await page.get(TEXT)


async def test_all_who_asked_before_it_was_begun_share_a_page(
    page: MetricsPage, few: Few, mock_clock: MockClock
) -> None:
    few.gate.clear()
    pages: list[bytes] = []

    async def ask() -> None:
        pages.append(await page.get(TEXT))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await _until(lambda: few.made == 1)
        mock_clock.jump(2 * FRESH)
        for _ in range(50):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        few.gate.set()
    assert few.taken == few.made == 2
    assert [text.splitlines()[2] for text in pages] == [b"taken 1.0", *[b"taken 2.0"] * 50]


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for another thread, which the test clock does not know."""
    while not condition():
        await trio.to_thread.run_sync(time.sleep, 0.001)


async def test_a_page_is_given_again_for_a_moment(page: MetricsPage, few: Few, mock_clock: MockClock) -> None:
    first = await page.get(TEXT)
    mock_clock.jump(FRESH)
    assert await page.get(TEXT) == first
    mock_clock.jump(0.001)
    assert await page.get(TEXT) != first
    assert await page.get(OPENMETRICS) != first
    assert few.taken == 3


async def test_the_end_of_the_daemon_does_not_wait_for_a_page(page: MetricsPage, few: Few) -> None:
    few.gate.clear()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(page.get, TEXT)
            await _until(lambda: few.made == 1)
            scope.cancel()
    assert scope.cancelled_caught
    few.gate.set()


async def test_without_a_loop_there_is_the_program_only() -> None:
    collector = LoopCollector("null")
    registry = CollectorRegistry()
    registry.register(collector)
    text = (await MetricsPage(registry, lambda: collector.take(None)).get(TEXT)).decode()
    assert [line.split("{")[0] for line in text.splitlines() if not line.startswith("#")] == [
        "colo_build_info"
    ]
    assert 'backend="null"' in text


@pytest.mark.parametrize("content_type", [TEXT, OPENMETRICS])
async def test_no_piece_of_work_is_longer_than_a_frame_may_wait(
    mock_clock: MockClock, content_type: str
) -> None:
    """In time of the processor, so that what else runs on this machine does not matter; the best of some."""
    rig = Rig(mock_clock)
    async with rig.running():
        assert _shortest(lambda: take_snapshot(rig.loop)) < LIMIT
        collector = LoopCollector("scripted")
        collector.take(rig.loop)
        registry = CollectorRegistry()
        registry.register(collector)
        ProcessCollector(registry=registry)
        pieces: dict[str, float] = {}
        for _ in range(10):
            families = registry.collect()
            while True:
                began = time.thread_time()
                family = next(iter(families), None)
                if family is None:
                    break
                render(family, content_type)
                took = time.thread_time() - began
                pieces[family.name] = min(took, pieces.get(family.name, took))
        assert len(pieces) > 50
        assert max(pieces.values()) < LIMIT, pieces


def _shortest(work: Callable[[], object]) -> float:
    times = []
    for _ in range(10):
        began = time.thread_time()
        work()
        times.append(time.thread_time() - began)
    return min(times)
