import pytest

from colo_compare.suitability.survey import FlowCount
from colo_compare.suitability.verdict import judge
from colo_compare.suitability.words import as_text, span
from tests.suitability.facts import survey


def test_the_answer_comes_first() -> None:
    lines = list(as_text(judge(survey(120, echoes=7))))
    assert lines[0] == "DOES NOT SUIT COLO"
    assert lines[1] == "  the primary would stand still for 10.00% of the time, which is 10% or more"
    assert lines[2] == "  120 of 120 checkpoints: tcp 80, random in Set-Cookie"
    text = "\n".join(lines)
    assert "observed        60 s, 1000 requests; frames: client 1000, primary 2000, secondary 2000" in text
    assert "checkpoints     120: 120.0 a minute, 120.00 in 1,000 requests" in text
    assert "divergences     127, of which 7 are echoes and 0 would share a checkpoint" in text
    assert "held            50.0% of the primary's frames: half of them up to 1 ms, 99 % up to 1 ms" in text
    assert (
        "by port\n  service  requests  checkpoints/min  per 1,000 requests\n  tcp 80   1000      120.0"
        in text
    )
    assert "what would help\n  tcp 80, Set-Cookie: random identifiers" in text


def test_where_nothing_diverges_there_is_less_to_say() -> None:
    text = "\n".join(as_text(judge(survey(0, requests=0))))
    assert text.startswith("CANNOT BE TOLD")
    assert "by cause" not in text
    assert "worst flows" not in text
    assert "1,000 requests" not in text.split("by port")[0]


def test_long_tables_are_cut() -> None:
    found = survey(120)
    found.flows = [FlowCount(f"tcp 10.0.0.2:80 - 10.0.0.1:{port}", 1, 0, ["random"]) for port in range(10)]
    assert "  and 2 more" in list(as_text(judge(found)))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0000625, "62.5 us"), (0.001, "1 ms"), (0.512, "512 ms"), (6.0, "6 s"), (600.0, "10 min"),
        (float("inf"), "more than 8 s"),
    ],
)  # fmt: skip
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text
