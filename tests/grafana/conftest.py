import pytest
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import generate_latest
from trio.testing import MockClock

from colo_compare.metrics import LoopCollector
from tests.rig import Rig


@pytest.fixture
async def metrics_page(mock_clock: MockClock) -> str:
    """Give the metrics of a pair in good health as text."""
    rig = Rig(mock_clock)
    registry = CollectorRegistry()
    async with rig.running():
        await rig.both_say(b"one", b"two")
        collector = LoopCollector("scripted")
        collector.take(rig.loop)
    registry.register(collector)
    ProcessCollector(registry=registry)
    return generate_latest(registry).decode()
