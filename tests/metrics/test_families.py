"""The metrics themselves: names, labels, conventions, and that docs/metrics.md tells them all."""

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import HistogramMetricFamily
from trio.testing import MockClock

from colo_compare.core.counters import REQUEST_REASONS
from colo_compare.core.settings import MODES
from colo_compare.core.sides import PRIMARY
from colo_compare.metrics import LoopCollector
from colo_compare.ports.memory import memory_pair
from tests.rig import Nothing, Rig, hang

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()

# The labels that there are, each with a closed set of values.
LABELS = {
    "mode", "side", "kind", "reason", "fate", "outcome", "state", "port", "role", "direction", "where",
    "le", "version", "compiled", "backend",
}  # fmt: skip


class Scrape:
    """What a registry gives for a loop at this moment."""

    def __init__(self, rig: Rig) -> None:
        self._collector = LoopCollector("scripted")
        registry = CollectorRegistry()
        registry.register(self._collector)
        self._collector.take(rig.loop)
        self.families: dict[str, Metric] = {family.name: family for family in registry.collect()}

    def value(self, name: str, **labels: str) -> float:
        (value,) = [
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        return value

    def nonzero(self, name: str, label: str) -> dict[str, float]:
        return {
            sample.labels[label]: sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and sample.value
        }

    def series(self) -> set[tuple[str, frozenset[tuple[str, str]]]]:
        return {
            (sample.name, frozenset(sample.labels.items()))
            for family in self.families.values()
            for sample in family.samples
        }


async def test_a_pair_that_protects(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        said = await rig.both_say(b"one", b"two")
        await rig.jump(1.0)
        await rig.send(rig.primary, rig.talk.primary.datagram(b"three"))
        await rig.jump(0.5)
        now = Scrape(rig)
    assert now.nonzero("colo_mode", "mode") == {"protect": 1}
    assert now.value("colo_protected") == 1
    assert now.value("colo_epoch") == 1
    assert now.value("colo_received_frames_total", side="primary") == 3
    assert now.value("colo_received_bytes_total", side="secondary") == sum(map(len, said))
    assert now.nonzero("colo_released_frames_total", "kind") == {"matched": 2}
    assert now.value("colo_released_bytes_total") == sum(map(len, said))
    assert now.nonzero("colo_secondary_frames_total", "fate") == {"compared": 2}
    assert now.nonzero("colo_parsed_frames_total", "kind") == {"udp": 5}
    assert now.value("colo_hold_seconds_count") == 2
    assert now.value("colo_held_frames") == 1
    assert now.value("colo_held_oldest_seconds") == 0.5
    assert now.nonzero("colo_checkpoint_requests_total", "reason") == {"startup": 1}
    assert now.nonzero("colo_checkpoints_total", "outcome") == {"committed": 1}
    assert now.nonzero("colo_checkpoint_state", "state") == {"comparing": 1}
    assert now.value("colo_checkpoint_commit_seconds_count") == 1
    assert now.value("colo_checkpoint_pause_seconds_sum") == 0.004
    assert now.value("colo_checkpoint_pages_total") == 2
    assert now.value("colo_checkpoint_bytes_total") == 8192
    assert now.value("colo_last_commit_timestamp_seconds") > 1.7e9
    assert now.value("colo_checkpointer_ready") == 1
    assert now.value("colo_flows", state="datagram") == 1
    assert now.value("colo_port_frames_total", port="primary", direction="received") == 3
    assert now.value("colo_port_frames_total", port="client", direction="sent") == 2
    assert now.nonzero("colo_port_connected", "port") == {"client": 1, "primary": 1, "secondary": 1}
    assert now.value("colo_port_role", port="secondary", role="secondary") == 1


async def test_a_checkpoint_under_way(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    rig.backend.on_request = hang
    async with rig.running():
        await rig.jump(4.0)
        now = Scrape(rig)
    assert now.value("colo_protected") == 0
    assert now.nonzero("colo_checkpoint_state", "state") == {"requested": 1}
    assert now.value("colo_checkpoint_running_seconds") == 4.0
    assert not now.families["colo_last_commit_timestamp_seconds"].samples


async def test_a_divergence_has_its_id_as_an_exemplar(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        for payload in (b"one", b"two"):
            await rig.send(rig.primary, rig.talk.primary.datagram(payload))
            await rig.send(rig.secondary, rig.talk.secondary.datagram(payload.upper()))
            await rig.jump(0.5)
        now = Scrape(rig)
    samples = {sample.labels["reason"]: sample for sample in now.families["colo_divergences"].samples}
    assert samples["payload"].value == 2
    exemplar: Any = samples["payload"].exemplar
    assert (exemplar.labels, exemplar.value) == ({"divergence_id": "2"}, 1.0)
    assert all(sample.exemplar is None for reason, sample in samples.items() if reason != "payload")


async def test_after_a_failover(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        await rig.send(rig.primary, rig.talk.primary.datagram(b"unheard"))
        rig.loop.failover.report_guest(PRIMARY, "its host is dead")
        await rig.settle()
        now = Scrape(rig)
    assert now.nonzero("colo_mode", "mode") == {"solo": 1}
    assert now.value("colo_failovers_total") == 1
    assert now.value("colo_failover_seconds_count") == 1
    assert now.value("colo_discarded_frames_total", side="primary", reason="failover") == 1
    assert now.value("colo_port_connected", port="primary") == 0
    assert now.value("colo_port_role", port="primary", role="lost") == 1
    assert now.value("colo_port_role", port="secondary", role="primary") == 1
    assert now.value("colo_secondaries_joined_total") == 0


async def test_after_a_new_secondary_has_joined(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        rig.loop.failover.report_guest(PRIMARY, "its host is dead")
        await rig.settle()
        near, far = memory_pair(name="new")
        await far.open()
        await rig.loop.protection.protect(near, Nothing())
        now = Scrape(rig)
    assert now.value("colo_secondaries_joined_total") == 1
    assert now.value("colo_port_role", port="primary", role="secondary") == 1
    assert now.value("colo_port_connected", port="primary") == 1


async def test_back_pressure_is_measured_while_it_lasts(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock, capacity=(1, 64, 64))
    async with rig.running():
        await rig.both_say(b"one", b"two", b"three")
        await rig.both_say(b"four")  # the one batch that ends the wait of a reader
        assert "primary" in rig.held_back()
        await rig.jump(2.0)
        now = Scrape(rig)
        assert now.value("colo_port_backpressure_seconds_total", port="primary") == 2.0
        assert now.value("colo_port_backlog_frames", port="client") > 0
        while rig.client.drain():
            await rig.settle()
        await rig.jump(2.0)
        assert Scrape(rig).value("colo_port_backpressure_seconds_total", port="primary") == 2.0


async def test_every_series_is_there_from_the_start(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        before = Scrape(rig).series()
        await rig.send(rig.client, rig.talk.client.datagram(b"question"), b"runt", bytes(60))
        await rig.both_say(b"answer")
        await rig.send(rig.secondary, rig.talk.secondary.datagram(b"nonsense"))
        await rig.jump(20.0)
        rig.loop.failover.report_guest(PRIMARY, "its host is dead")
        await rig.settle()
        assert Scrape(rig).series() == before


@pytest.fixture
async def families(mock_clock: MockClock) -> list[Metric]:
    rig = Rig(mock_clock)
    async with rig.running():
        return list(Scrape(rig).families.values())


async def test_names_and_labels_follow_the_conventions(families: list[Metric]) -> None:
    for family in families:
        assert re.fullmatch(r"colo(_[a-z]+)+", family.name), family.name
        assert family.documentation.endswith("."), family.name
        assert not re.search(r"milli|micro|_ms$|_us$|_kb|percent", family.name)
        labels = {label for sample in family.samples for label in sample.labels}
        assert labels <= LABELS, family.name
        if isinstance(family, HistogramMetricFamily):
            assert family.name.endswith("_seconds")
        if family.type == "counter":
            assert all(sample.name == f"{family.name}_total" for sample in family.samples)


async def test_no_page_is_long(families: list[Metric]) -> None:
    assert sum(len(family.samples) for family in families) < 350


async def test_label_values_are_those_of_the_core(families: list[Metric]) -> None:
    values = {
        family.name: {sample.labels.get(label, "") for sample in family.samples for label in sample.labels}
        for family in families
    }
    assert values["colo_mode"] == set(MODES)
    assert values["colo_checkpoint_requests"] == set(REQUEST_REASONS)
    assert values["colo_divergences"] == set(REQUEST_REASONS[:7])


async def test_the_page_tells_every_metric_with_its_type_and_labels(families: list[Metric]) -> None:
    told = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(
            r"^\| `(colo_\w+)` \| (\w+) \|([^|]*)\| [^|]+ \|$", PAGE, re.MULTILINE
        )
    }
    suffixes = {"counter": "_total", "info": "_info"}
    given = {
        family.name + suffixes.get(family.type, ""): (
            family.type,
            tuple(label for label in (family.samples[0].labels if family.samples else ()) if label != "le"),
        )
        for family in families
    }
    assert told == given
