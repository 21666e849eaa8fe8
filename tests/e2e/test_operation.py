"""The operator's commands against a real proxy under real traffic, as docs/operation.md has them."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from colo_compare import cli
from colo_compare.demo.client import Connection
from colo_compare.demo.guest import signed
from colo_compare.demo.lab import GUEST4, Lab
from colo_compare.ports.pcap import read_capture
from tests.e2e.conftest import NULL

Run = Callable[..., str]
SIZE = 3000


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One lab for all tests of this file, which leave it as they found it, but for the last one."""
    with Lab() as made:
        (made.directory / "captures").mkdir()
        made.start(
            {
                "proxy": {"mode": "protect"},
                "checkpointer": NULL,
                "capture": {"directory": str(made.directory / "captures"), "after": "50ms"},
            }
        )
        yield made


@pytest.fixture
def run(lab: Lab, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command against the lab's proxy, and give what it prints."""

    def command(*argv: str, code: int = cli.OK) -> str:
        assert cli.main([argv[0], "--socket", str(lab.directory / "control.sock"), *argv[1:]]) == code
        captured = capsys.readouterr()
        return captured.out or captured.err

    return command


def diverge(lab: Lab) -> None:
    """Ask for what the guests answer differently. The client gets the primary's answer."""
    with Connection(lab.client, GUEST4) as connection:
        assert connection.request(f"/whoami/{SIZE}").read() == b"".join(signed(SIZE, "A"))


def test_a_divergence_from_all_sides(lab: Lab, run: Run) -> None:
    diverge(lab)
    assert run("status").startswith("PROTECTED\n")
    text = run("explain")
    assert text.startswith("divergence 1: ")
    assert "flow        tcp 10.77.0.2:80 - 10.77.0.1:" in text
    assert any(" ! " in line and " 41 " in line and " 42 " in line for line in text.splitlines())
    assert "  TCP.seq " in text
    assert "checkpoint  epoch 2 was committed " in text
    assert "tcp 10.77.0.2:80" in run("explain", "--patterns").splitlines()[1]
    assert " Divergence " in run("events")
    top = json.loads(run("top", "--json", "-n", "1"))
    assert top["flows"][0]["divergences"] == 1
    assert b"speaking" not in lab.proxy.log.read_bytes()  # the log has nothing of what was said
    _wait_for_captures(run, 1)
    (path,) = (lab.directory / "captures").iterdir()
    with read_capture(path) as capture:
        marked = {frame.interface for frame in capture if "divergence 1 (payload" in frame.comment}
    assert marked == {"primary", "secondary"}


def _wait_for_captures(run: Run, number: int) -> None:
    for _ in range(100):
        if json.loads(run("status", "--json"))["captures"]["written"] == number:
            return
        run("capture", "--seconds", "0.05", "-w", os.devnull)  # takes so long, and no more
    raise AssertionError("no capture was written")


def test_a_capture_of_a_download(lab: Lab, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    with _download(lab) as connection:
        run("capture", "--seconds", "0.5", "--new", "-w", str(path))
        connection.stop()
    with read_capture(path) as capture:
        frames = list(capture)
    assert {frame.interface for frame in frames} == {"client", "primary", "secondary"}
    assert any(frame.comment.startswith("released after ") for frame in frames)


class _Download(threading.Thread):
    """Requests on one connection, until it is told to stop."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self._lab = lab
        self._stopping = threading.Event()
        self.answers = 0

    def run(self) -> None:
        with Connection(self._lab.client, GUEST4) as connection:
            while not self._stopping.is_set():
                assert len(connection.request("/bytes/20000").read()) == 20000
                self.answers += 1

    def stop(self) -> None:
        self._stopping.set()
        self.join()


@contextmanager
def _download(lab: Lab) -> Iterator[_Download]:
    download = _Download(lab)
    download.start()
    try:
        yield download
    finally:
        download.stop()


def test_a_drain_and_what_came_meanwhile(lab: Lab, run: Run) -> None:
    with Connection(lab.client, GUEST4) as connection:
        assert len(connection.request("/bytes/100").read()) == 100
        assert run("drain").startswith("drained: nothing is held")
        assert run("status").startswith("PROTECTED, draining\n")
        received = json.loads(run("status", "--json"))["counters"]["received"]["client"]
        connection.socket.sendall(f"GET /bytes/100 HTTP/1.1\r\nHost: {GUEST4}\r\n\r\n".encode())
        assert json.loads(run("status", "--json"))["counters"]["received"]["client"] == received
        assert run("drain", "--end").startswith("serving: ")
        assert connection.socket.recv(4096).startswith(b"HTTP/1.1 200")


def test_the_doctor_finds_the_lab_healthy(lab: Lab) -> None:
    program = [sys.executable, "-m", "colo_compare", "doctor", "--json"]
    program += ["-c", str(lab.directory / "colo-compare.toml")]
    out, _ = lab.proxy_namespace.start(program, stdout=subprocess.PIPE).communicate(timeout=60)
    found = {one["about"]: one for one in json.loads(out)}
    assert {found[f"{side} port"]["state"] for side in ("client", "primary", "secondary")} == {"ok"}
    assert found["control socket"]["text"].startswith("a proxy answers on ")


def test_modes_and_settings(lab: Lab, run: Run) -> None:
    assert run("set", "mode", "observe") == "mode: protect -> observe\n"
    assert run("status", code=cli.NEGATIVE).startswith("UNPROTECTED: mode observe only counts")
    before = json.loads(run("status", "--json", code=cli.NEGATIVE))["counters"]["divergences"]["payload"]
    diverge(lab)
    after = json.loads(run("status", "--json", code=cli.NEGATIVE))["counters"]["divergences"]["payload"]
    assert after == before + 1
    assert run("set", "compare_timeout", "500ms") == "compare_timeout: 3s -> 500ms\n"
    assert run("set", "mode", "protect") == "mode: observe -> protect\n"
    assert run("checkpoint").startswith("asked for the checkpoint")
    assert run("promote") == "promoted: the guest on port packet:secondary is the primary now\n"
    assert run("set", "mode", "protect", code=cli.NEGATIVE).startswith("colo-compare: mode protect needs a")
