"""A lint of the dashboards: what Grafana would take without a word and show wrongly, or not at all."""

import itertools
import re
from typing import Any

import pytest

from tests.grafana.boards import BOARDS, PANELS, Panel, expressions, metrics, panels, selectors, substitute

EXPRESSIONS = list(expressions())
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
each_panel = pytest.mark.parametrize("panel", PANELS, ids=str)
each_expression = pytest.mark.parametrize(
    "expression", [expr for _, expr in EXPRESSIONS], ids=[where for where, _ in EXPRESSIONS]
)


def test_there_is_something_to_look_at() -> None:
    assert set(BOARDS) == {"fleet", "pair"}
    assert len(PANELS) > 50


@each_board
def test_a_board_can_be_provisioned_anywhere(board: dict[str, Any]) -> None:
    assert board["id"] is None
    assert board["schemaVersion"] >= 39
    assert re.fullmatch(r"colo-[a-z]+", board["uid"])
    assert board["editable"] is False
    assert board["title"].startswith("COLO ")
    assert board["description"]


def test_each_board_has_a_uid_of_its_own_and_leads_to_others_that_exist() -> None:
    uids = [board["uid"] for board in BOARDS.values()]
    assert len(set(uids)) == len(uids)
    text = str(list(BOARDS.values()))
    links = set(re.findall(r"/d/([\w-]+)", text))
    assert links == set(uids)


@each_board
def test_the_variables(board: dict[str, Any]) -> None:
    datasource, job, instance = board["templating"]["list"]
    assert (datasource["name"], datasource["type"], datasource["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    for variable in (job, instance):
        assert variable["type"] == "query"
        assert variable["datasource"] == DATASOURCE
        assert variable["refresh"] == 2, "it must follow the shown time"
        assert not variable["includeAll"] or variable["allValue"] == ".+"
    assert (job["name"], job["multi"]) == ("job", True)
    assert instance["name"] == "instance"
    assert 'job=~"$job"' in instance["query"]["query"]


@each_board
def test_failovers_are_annotated(board: dict[str, Any]) -> None:
    names = [annotation["name"] for annotation in board["annotations"]["list"]]
    assert "Failovers" in names
    assert "Checkpoints" in names or board["uid"] == "colo-fleet", (
        "a fleet's checkpoints would cover its panels"
    )
    assert all(annotation["datasource"] == DATASOURCE for annotation in board["annotations"]["list"])


@pytest.mark.parametrize("board", BOARDS)
def test_panels_fill_the_width_and_do_not_overlap(board: str) -> None:
    assert len({panel["id"] for panel in BOARDS[board]["panels"]}) == len(BOARDS[board]["panels"])
    places = [panel["gridPos"] for panel in BOARDS[board]["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for a, b in itertools.combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, (a, b)


@pytest.mark.parametrize("board", BOARDS)
def test_titles_are_unique(board: str) -> None:
    titles = [panel.title for panel in panels(board)]
    assert len(set(titles)) == len(titles)


@each_panel
def test_a_panel_says_what_it_shows(panel: Panel) -> None:
    assert panel.title
    assert panel.raw["description"].endswith(".")
    assert panel.unit
    assert panel.raw["datasource"] == DATASOURCE
    assert panel.raw["targets"]
    ids = [target["refId"] for target in panel.raw["targets"]]
    assert len(set(ids)) == len(ids)
    for target in panel.raw["targets"]:
        assert target["datasource"] == DATASOURCE
        several = len(panel.raw["targets"]) > 1
        assert target["legendFormat"] or not several, "series that a reader cannot tell apart"


@each_expression
def test_an_expression_parses_and_selects_by_job_and_instance(expression: str) -> None:
    found = selectors(substitute(expression, job="JOB", instance="INSTANCE"))
    assert found
    for selector in found:
        text = str(selector)
        assert 'job=~"JOB"' in text, text
        assert 'instance=~"INSTANCE"' in text, text


@each_expression
def test_an_expression_asks_for_metrics_that_there_are(expression: str) -> None:
    known = metrics()
    assert {selector.name for selector in selectors(substitute(expression))} <= set(known)


@each_expression
def test_a_counter_is_shown_by_its_rate(expression: str) -> None:
    known = metrics()
    for selector in selectors(substitute(expression)):
        assert selector.name is not None
        if known[selector.name] == "counter":
            around = re.escape(selector.name) + r"\{[^}]*\}\[\$__(rate_interval|range)\]"
            assert re.search(rf"\b(rate|increase)\({around}", expression), expression
    assert not re.search(r"\[\d+[smh]\]", expression), "a fixed window does not follow the scrape interval"


def test_every_metric_is_shown_somewhere() -> None:
    shown = {selector.name for _, expr in EXPRESSIONS for selector in selectors(substitute(expr))}
    told = {name for name in metrics() if name.startswith("colo_")}
    # Of a histogram some part is enough: its buckets, or its mean.
    parts = re.compile(r"_(bucket|count|sum)$")
    assert {parts.sub("", name) for name in told} == {
        parts.sub("", name or "") for name in shown - {"up"}
    } - {name for name in metrics() if name.startswith("process_")}
