"""The real daemon under real traffic and real faults, and the real Prometheus that watches it."""

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.faults import Story, told
from tests.e2e.prometheus import Series
from tests.grafana.boards import BOARDS, PANELS, Panel, alerts, metrics, recorded, substitute
from tests.grafana.picture import draw

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is missing: apt-get install prometheus"
)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, _namespaces: None) -> Iterator[Story]:
    with told(tmp_path_factory.mktemp("prometheus")) as story:
        yield story


def test_nothing_fires_in_good_health(story: Story) -> None:
    assert story.in_good_health == set()


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_fires_on_its_fault(story: Story, alert: str) -> None:
    assert story.fired[alert]


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_a_panel_shows_data(story: Story, panel: Panel) -> None:
    for target in panel.raw["targets"]:
        assert numbers(show(story, panel, target["expr"])), target["expr"]


def show(story: Story, panel: Panel, expression: str) -> list[Series]:
    """Give what Grafana would get for it, with the pair chosen as the instance where only one can be."""
    instance = story.pair if panel.board == "pair" else ".+"
    query = substitute(expression, instance=instance)
    if panel.raw["type"] in {"stat", "table"}:
        return story.prometheus.query(query, story.calm if panel.board == "fleet" else story.alive)
    return story.prometheus.query_range(query, story.began, story.alive, 1.0)


def numbers(result: list[Series]) -> list[float]:
    values = [float(value) for series in result for _, value in series.get("values") or [series["value"]]]
    return [value for value in values if not math.isnan(value)]


def test_every_metric_that_is_told_is_scraped(story: Story) -> None:
    scraped = set(story.prometheus.api("label/__name__/values"))
    assert set(metrics()) <= scraped
    assert set(recorded()) <= scraped


def test_no_series_names_an_address_or_a_flow(story: Story) -> None:
    series = story.prometheus.api("series", **{"match[]": '{__name__=~"colo_.+"}'}, start=story.began)
    for labels in series:
        text = " ".join(value for name, value in labels.items() if name != "instance")
        assert "10.77." not in text
        assert "fd77" not in text
    per_instance = [labels for labels in series if labels.get("instance") == story.pair]
    assert 200 < len(per_instance) < 400


def test_divergences_have_exemplars(story: Story) -> None:
    found = story.prometheus.api(
        "query_exemplars",
        query=f'colo_divergences_total{{instance="{story.pair}"}}',
        start=story.began,
        end=story.alive,
    )
    ids = [int(exemplar["labels"]["divergence_id"]) for series in found for exemplar in series["exemplars"]]
    assert len(ids) > 1
    assert sorted(ids) == ids


def test_the_dashboards_as_pictures(story: Story, tmp_path: Path) -> None:
    """With DASHBOARD_IMAGES=docs/images they go where docs/metrics.md shows them."""
    directory = Path(os.environ.get("DASHBOARD_IMAGES", tmp_path))
    for board in BOARDS:
        path = draw(
            board,
            lambda panel, expression: show(story, panel, expression),
            (story.began, story.alive),
            directory,
        )
        assert path.stat().st_size > 100_000
