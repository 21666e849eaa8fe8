"""A guest that is slow, a network that loses frames: TCP repairs it, and nothing diverges."""

from collections.abc import Callable

import pytest

from colo_compare.demo.client import Connection
from colo_compare.demo.content import digest
from colo_compare.demo.guest import ECHO_PORT
from colo_compare.demo.lab import GUEST4, Lab
from tests.e2e.traffic import ask
from tests.e2e.verdict import assert_quiet

SIZE = 8 << 20


@pytest.mark.parametrize("side", ["primary", "secondary"])
def test_a_guest_that_is_20_ms_away(pair: Callable[..., Lab], side: str) -> None:
    lab = pair(ports={side: "fault=delay:10ms"})

    with Connection(lab.client, GUEST4) as connection:
        download = connection.download(SIZE)
    questions = [b"%d" % n for n in range(20)]

    assert download.sha256 == digest(SIZE)
    assert ask(lab, GUEST4, ECHO_PORT, questions) == questions
    assert_quiet(lab, compared=SIZE)


@pytest.mark.parametrize(
    "ports",
    [
        {"secondary": "fault_send=loss:0.01,seed:1"},
        {"secondary": "fault_receive=loss:0.01,seed:2"},
        {"primary": "fault=loss:0.01,seed:3"},
        {"client": "fault=loss:0.01,seed:4"},
        {"secondary": "fault=reorder:0.02,duplicate:0.02,seed:5"},
        {"primary": "fault=reorder:0.02,duplicate:0.02,seed:6"},
    ],
    ids=["to-secondary", "from-secondary", "primary", "client", "secondary-reorders", "primary-reorders"],
)
def test_lost_and_disordered_frames(pair: Callable[..., Lab], ports: dict[str, str]) -> None:
    lab = pair(ports=ports)

    with Connection(lab.client, GUEST4) as connection:
        download = connection.download(SIZE)
        answer = connection.upload(SIZE)

    assert download.sha256 == answer == digest(SIZE)
    assert_quiet(lab, compared=SIZE)
