"""The receiver as a program, over each kind of connection."""

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from colo_compare.checkpoint.memory.__main__ import main
from colo_compare.checkpoint.memory.backend import MemoryCheckpointer
from colo_compare.checkpoint.memory.options import MemoryOptions
from colo_compare.core.actions import CheckpointRequest
from tests.checkpoint.memory.conftest import ROOT, Reports, Start

OPENSSL = shutil.which("openssl")


@contextmanager
def receiver(*words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "colo_compare.checkpoint.memory", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        assert "waiting for a primary" in process.stderr.readline()
        yield process
        process.kill()


async def checkpoint_through(primary: str, endpoint: str, tls_dir: str = "") -> list[str]:
    reports = Reports()
    backend = MemoryCheckpointer(
        MemoryOptions(primary=primary, secondary=endpoint, channels=2, tls_dir=tls_dir)
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.run, reports)
        while not backend.ready:  # noqa: ASYNC110 - the contract has no event for it
            await trio.sleep(0.001)
        await backend.request(CheckpointRequest(1, ("startup",), ""))
        nursery.cancel_scope.cancel()
    return reports.seen


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def make_certificates(directory: Path) -> None:
    """Make an authority, and certificates for both ends by it."""
    ca = ["-CA", "ca-cert.pem", "-CAkey", "ca-key.pem"]
    for name, more in (("ca", []), ("server", ca), ("client", ca)):
        subprocess.run(
            [
                str(OPENSSL), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-nodes", "-days", "2", "-subj", f"/CN={name}",
                "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                "-addext", f"basicConstraints=critical,CA:{'TRUE' if name == 'ca' else 'FALSE'}",
                "-keyout", f"{name}-key.pem", "-out", f"{name}-cert.pem", *more,
            ],
            cwd=directory, check=True, capture_output=True,
        )  # fmt: skip


@pytest.mark.parametrize("kind", ["unix", "tcp", "tls"])
async def test_it_serves_a_primary(start: Start, tmp_path: Path, kind: str) -> None:
    if kind == "tls":
        if OPENSSL is None:
            pytest.skip("openssl, which makes the certificates, is not installed")
        make_certificates(tmp_path)
    primary, secondary = start("primary"), start("secondary")
    primary.tell("write 5 100 5")
    endpoint = f"unix:{tmp_path}/receiver" if kind == "unix" else f"{kind}:127.0.0.1:{free_port()}"
    with (
        receiver("--guest", secondary.path, "--listen", endpoint, "--tls-dir", str(tmp_path)) as process,
        trio.fail_after(10),
    ):
        assert await checkpoint_through(primary.path, endpoint, str(tmp_path)) == [
            "paused",
            "loaded",
            "committed",
        ]
        assert primary.digest == secondary.digest
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


async def test_a_socket_that_a_dead_receiver_left_behind_is_no_obstacle(start: Start, tmp_path: Path) -> None:
    secondary = start("secondary")
    endpoint = f"unix:{tmp_path}/receiver"
    for _ in range(2):
        with receiver("--guest", secondary.path, "--listen", endpoint) as process:
            process.kill()
            process.wait()


def test_a_guest_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--guest", str(tmp_path / "none"), "--listen", f"unix:{tmp_path}/receiver"]
    assert main(words) == 1
    assert "start the guest first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [("--listen", "udp:x", "is no endpoint"), ("--timeout", "3", "is no duration")],
)
def test_an_option_that_makes_no_sense_is_told(
    option: str, value: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--guest", "/none", "--listen", "unix:/none", option, value]) == 1
    assert reason in capsys.readouterr().err
