import math
from typing import Any

import pytest

from colo_compare.operate import causes
from colo_compare.suitability.survey import Hold
from colo_compare.suitability.verdict import DOES_NOT, PARTLY, SUITS, UNKNOWN, judge, quantile, rates
from tests.suitability.facts import survey


@pytest.mark.parametrize(
    ("checkpoints", "grade"),
    [(0, SUITS), (11, SUITS), (12, PARTLY), (119, PARTLY), (120, DOES_NOT), (5000, DOES_NOT)],
)
def test_what_decides_is_how_long_the_primary_would_stand_still(checkpoints: int, grade: str) -> None:
    """In 60 s, at 50 ms each: one per cent is 12 checkpoints."""
    verdict = judge(survey(checkpoints))
    assert verdict.grade == grade
    assert verdict.rates.standing_still <= 1.0
    assert verdict.reasons


def test_rates() -> None:
    found = judge(survey(30, requests=1500)).rates
    assert (found.per_minute, found.per_thousand, found.standing_still) == (30.0, 20.0, 0.025)
    assert rates(1, survey(1, requests=0)).per_thousand is None
    assert rates(1, survey(1, seconds=0.0)).per_minute == 0.0


def test_a_late_secondary_is_a_reservation() -> None:
    assert judge(survey(late=9)).grade == SUITS
    verdict = judge(survey(late=11))
    assert verdict.grade == PARTLY
    assert "the secondary is late" in verdict.reasons[-1]
    assert judge(survey(5000, late=11)).grade == DOES_NOT


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"secondary": 0}, "nothing came from the secondary"),
        ({"requests": 19}, "19 requests are too few"),
        ({"seconds": 4.0}, "4 s are too short"),
        ({"secondary": 900}, "the secondary sent 900 frames, the primary 2000"),
    ],
)
def test_what_cannot_be_told(facts: dict[str, Any], why: str) -> None:
    verdict = judge(survey(**facts))
    assert verdict.grade == UNKNOWN
    assert verdict.reasons[0].startswith(why)


CAUSES = [
    causes.TIMESTAMP, causes.RANDOM, causes.NUMBER, causes.LENGTH, causes.ORDER, causes.ONE_SIDE,
    causes.ENDING, causes.OPTIONS, causes.MID_STREAM, causes.CONTENT, causes.UNEXAMINED,
]  # fmt: skip


@pytest.mark.parametrize("cause", CAUSES)
def test_there_is_advice_for_each_cause(cause: str) -> None:
    (advice,) = judge(survey(50, cause=cause, field="")).advice
    assert advice.startswith("tcp 80: ")


def test_advice_for_tls() -> None:
    (advice,) = judge(survey(50, text=causes.TLS, field="")).advice
    assert "each TLS handshake costs a checkpoint" in advice


def test_advice_names_the_field() -> None:
    assert judge(survey(50)).advice[0].startswith("tcp 80, Set-Cookie: ")
    assert judge(survey(0)).advice == []


def test_what_would_be_held() -> None:
    waits = judge(survey(late=11)).waiting
    assert (waits.share, waits.median, waits.p99) == (0.5, 0.001, 0.512)


@pytest.mark.parametrize(
    ("counts", "share", "bound"),
    [
        ([0, 0, 0], 0.5, 0.0),
        ([1, 0, 0], 0.99, 1.0),
        ([1, 1, 0], 0.5, 1.0),
        ([1, 1, 0], 0.51, 2.0),
        ([99, 0, 1], 0.99, 1.0),
        ([98, 0, 2], 0.99, math.inf),
    ],
)
def test_quantiles(counts: list[int], share: float, bound: float) -> None:
    assert quantile(Hold([1.0, 2.0], counts), share) == bound
