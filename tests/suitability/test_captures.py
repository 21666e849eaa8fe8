from pathlib import Path

import pytest

from colo_compare.operate import causes
from colo_compare.replay.recording import Recording
from colo_compare.replay.timeline import START, lay_out
from colo_compare.suitability.captures import survey_captures
from colo_compare.suitability.survey import Survey
from tests.conversation import Conversation
from tests.replay.conftest import Pair

TIMEOUT = 3.0


def survey(pair: Pair) -> Survey:
    timeline = lay_out(Recording(pair.primary()), Recording(pair.secondary()), None, None, START)
    return survey_captures(timeline, TIMEOUT, 0.05)


def request(pair: Pair, talk: Conversation, primary: bytes, secondary: bytes) -> None:
    pair.after(1.0)
    pair.pass_by(talk.client.data(b"GET / HTTP/1.1\r\n\r\n"))
    pair.pass_by(talk.primary.data(primary), talk.secondary.data(secondary))
    pair.pass_by(talk.client.ack())


def test_alike(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    talk = pair.connection()
    for _ in range(3):
        request(pair, talk, b"answer", b"answer")
    found = survey(pair)
    assert (found.divergences, found.checkpoints) == (0, 0)
    assert found.seconds == pytest.approx(3.0, abs=0.1)
    (service,) = found.services
    assert (service.requests, service.primary_bytes) == (3, 18)
    assert found.frames == [8, 4, 4]
    assert found.compared == 4


def test_different(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    talk = pair.connection()
    for number in range(3):
        request(pair, talk, b"X-Count: %d\r\n" % number, b"X-Count: %d\r\n" % (number + 5))
    found = survey(pair)
    assert (found.divergences, found.echoes, found.checkpoints) == (3, 0, 3)
    (pattern,) = found.patterns
    assert (pattern.cause, pattern.field) == (causes.NUMBER, "X-Count")
    assert found.services[0].checkpoints == 3
    assert sum(found.parts) == 3


def test_times_are_those_of_the_captures(tmp_path: Path) -> None:
    """A time in what was said is seen to be one by the clock of then, not of today."""
    pair = Pair(tmp_path)
    talk = pair.connection()
    request(pair, talk, b"at 1700000001.25", b"at 1700000001.75")
    assert survey(pair).patterns[0].cause == causes.TIMESTAMP
