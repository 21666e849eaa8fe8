"""`colo-compare replay` on captures of two real kernels."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from colo_compare.cli import main
from colo_compare.demo.client import Connection
from colo_compare.demo.content import digest
from colo_compare.demo.guest import ECHO_PORT
from colo_compare.demo.lab import GUEST4, GUEST6, GUEST_MAC, Lab, Wiring
from tests.e2e.recorder import recorded
from tests.e2e.traffic import ask, ping
from tests.e2e.verdict import settled

MIB = 1 << 20
HOSTS = pytest.mark.parametrize("host", [GUEST4, GUEST6])


@contextmanager
def both_recorded(lab: Lab, directory: Path) -> Iterator[None]:
    primary, secondary = (guest.namespace for guest in lab.guests)
    with recorded(primary, directory / "primary.pcap"), recorded(secondary, directory / "secondary.pcapng"):
        yield
        settled(lab)


@pytest.fixture
def replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[int, dict[str, Any]]]:
    def run() -> tuple[int, dict[str, Any]]:
        captures = [f"--primary={tmp_path}/primary.pcap", f"--secondary={tmp_path}/secondary.pcapng"]
        capsys.readouterr()
        code = main(["replay", "--json", *captures])
        return code, json.loads(capsys.readouterr().out)

    return run


@HOSTS
@pytest.mark.parametrize("offloads", [True, False])
def test_two_kernels_that_say_the_same(
    pair: Callable[..., Lab],
    tmp_path: Path,
    replay: Callable[[], tuple[int, dict[str, Any]]],
    host: str,
    offloads: bool,
) -> None:
    lab = pair(Wiring(offloads=offloads, timestamps=(2, 1)))
    questions = [b"%d" % n * 10 for n in range(20)]

    with both_recorded(lab, tmp_path):
        with Connection(lab.client, host) as connection:
            assert connection.download(2 * MIB).sha256 == digest(2 * MIB)
        assert ask(lab, host, ECHO_PORT, questions) == questions
        assert ping(lab, host, [b"ping"]) == [b"ping"]

    code, verdict = replay()
    assert (code, verdict["divergences"]) == (0, [])
    assert verdict["guest"]["mac"] == GUEST_MAC
    assert verdict["bytes_compared"] > 2 * MIB
    assert verdict["flows"] == 3  # TCP, UDP and ping
    assert verdict["unplaced"] == 0
    assert 0 < verdict["hold_seconds"]["max"] < 3.0


def test_where_two_kernels_differ(
    pair: Callable[..., Lab], tmp_path: Path, replay: Callable[[], tuple[int, dict[str, Any]]]
) -> None:
    lab = pair()

    with both_recorded(lab, tmp_path), Connection(lab.client, GUEST4) as connection:
        body = connection.request("/whoami/100000").read()
        assert body[50_000:50_001] == b"A"

    code, verdict = replay()
    assert code == 1
    (divergence,) = verdict["divergences"]
    assert divergence["reason"] == "payload"
    assert divergence["primary"].startswith(b"A".hex())
    assert divergence["secondary"].startswith(b"B".hex())
    assert divergence["offset"] == pytest.approx(50_000, abs=200)  # the header comes first
