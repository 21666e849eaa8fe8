"""The daemon in this process between memory ports, and as a process of its own between unix sockets."""

import json
import logging
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from colo_compare import cli
from colo_compare.control import call
from colo_compare.errors import ControlRefused
from colo_compare.operate.methods import ControlMethods
from tests.conversation import Clock, Conversation
from tests.daemon_rig import DETERMINISTIC, Rig, memory_rig, write_config

# In this process


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A pair between memory ports."""
    return memory_rig(tmp_path)


async def test_status_shows_everything(rig: Rig) -> None:
    async with rig.running():
        await rig.send(rig.primary, rig.talk.primary.datagram(b"held").data)
        status = await rig.call("status")
    assert status["protected"]
    assert (status["mode"], status["epoch"], status["why"]) == ("protect", 1, "")
    assert status["held"]["frames"] == 1
    assert status["ports"]["primary"]["role"] == "primary"
    assert status["ports"]["primary"]["received_frames"] == 1
    assert status["checkpointer"] == {"backend": "null", "ready": True, "ended": "", "figures": {}}
    assert status["counters"]["received"]["primary"] == 1
    assert status["events"][-1]["event"] == "CheckpointCommitted"
    assert status["events"][-1]["seconds_ago"] >= 0


async def test_checkpoint_and_promote(rig: Rig) -> None:
    async with rig.running():
        assert await rig.call("checkpoint") == {"epoch": 2}
        assert (await rig.call("status"))["epoch"] == 2
        assert await rig.call("promote") == {"primary": "memory:secondary"}
        status = await rig.call("status")
        assert not status["protected"]
        assert status["why"] == "the secondary is lost, one guest runs alone"
        assert status["promoted"] == "asked for by the operator"
        assert status["ports"]["secondary"]["role"] == "primary"
        assert status["ports"]["primary"]["role"] == "lost"
        with pytest.raises(
            ControlRefused, match="not promoted: nothing can take over: there is no secondary"
        ):
            await rig.call("promote")
        with pytest.raises(ControlRefused, match="mode solo makes no checkpoints"):
            await rig.call("checkpoint")


async def test_sighup_takes_what_can_be_taken(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "colo_compare")
    async with rig.running():
        new = rig.path.read_text().replace(
            "[proxy]\n", '[proxy]\nmode = "observe"\ncompare_timeout = "77ms"\n'
        )
        rig.path.write_text(new.replace("memory:client", "memory:other"))
        for _ in range(2):
            caplog.clear()
            signal.raise_signal(signal.SIGHUP)
            await wait_all_tasks_blocked()
            assert "$.ports.client has changed: this takes effect at the next restart" in caplog.text
            assert "$.proxy.mode has changed" in caplog.text
            assert "compare_timeout" not in caplog.text
            assert "the configuration was read again" in caplog.text
        loop = rig.daemon.loop
        assert loop.settings.compare_timeout == loop.proxy.settings.compare_timeout == 0.077
        assert loop.proxy.mode == "protect"


async def test_sighup_with_a_mistake_changes_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    async with rig.running():
        rig.path.write_text(rig.path.read_text().replace("[proxy]\n", '[proxy]\ncompare_timeout = "soon"\n'))
        signal.raise_signal(signal.SIGHUP)
        await wait_all_tasks_blocked()
        (record,) = [r for r in caplog.records if "was not taken" in r.message]
        assert record.exc_info is not None
        assert "$.proxy.compare_timeout" in str(record.exc_info[1])
        assert rig.daemon.loop.settings.compare_timeout == 3.0
        assert (await rig.call("status"))["protected"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_gracefully_and_a_second_one_at_once(rig: Rig, number: signal.Signals) -> None:
    async with rig.running():
        await rig.send(rig.primary, rig.talk.primary.datagram(b"held").data)
        signal.raise_signal(number)
        assert (await rig.call("status"))["stopping"]
        assert not rig.ended.is_set()
        signal.raise_signal(number)
        await rig.ended.wait()
    assert rig.error is None
    assert not await trio.Path(rig.config.control.socket).exists()


async def test_a_signal_while_the_ports_are_opened_ends_it_at_once(rig: Rig) -> None:
    async def signals() -> AsyncIterator[int]:
        yield signal.SIGTERM

    with trio.CancelScope() as everything:
        await rig.daemon._obey(signals(), everything)
    assert everything.cancel_called


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["status"], cli.OK, "PROTECTED\nmode          protect, up 0 s"),
        (["status", "--json"], cli.OK, '"protected": true'),
        (["checkpoint"], cli.OK, "asked for the checkpoint that begins epoch 2\n"),
        (["promote"], cli.OK, "promoted: the guest on port memory:secondary is the primary now\n"),
    ],
)
async def test_the_commands_show_it(
    rig: Rig, capsys: pytest.CaptureFixture[str], argv: list[str], code: int, words: str
) -> None:
    async with rig.running():
        await wait_all_tasks_blocked()
        argv = [*argv, "--socket", rig.config.control.socket]
        assert await trio.to_thread.run_sync(cli.main, argv) == code
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(("page", "found"), [("", b"404"), ("page = true", b"200")])
async def test_http_from_before_the_ports_are_open_to_the_end(
    tmp_path: Path, page: str, found: bytes
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ports = {side: f"memory:{side}" for side in ("client", "primary", "secondary")}
    rig = Rig(write_config(tmp_path, ports))
    rig.path.write_text(rig.path.read_text() + f'[http]\nlisten = "127.0.0.1:{port}"\n{page}\n')
    rig = Rig(rig.path)

    async def get(path: str) -> bytes:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            return b"".join([chunk async for chunk in stream])

    async with rig.running():
        await rig.call("status")
        assert (await get("/readyz")).startswith(b"HTTP/1.1 200 ")
        assert b"\ncolo_protected 1.0\n" in await get("/metrics")
        assert (await get("/page")).startswith(b"HTTP/1.1 " + found)
        assert (await get("/page/state")).startswith(b"HTTP/1.1 " + found)
    with pytest.raises(OSError, match=r"refused|connect"):
        await get("/healthz")


async def test_while_the_ports_are_opened_there_is_nothing_to_ask(rig: Rig) -> None:
    with pytest.raises(ControlRefused, match="still opening its ports"):
        await ControlMethods(rig.daemon).status({})


# As a process


class Process:
    """`colo-compare run` on a configuration."""

    def __init__(self, path: Path) -> None:
        self.directory = path.parent
        self.socket = str(self.directory / "control.sock")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "colo_compare", "run", "-c", str(path)], stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        self._stderr: IO[str] = self._process.stderr
        self.said: list[str] = []

    def wait_for(self, words: str) -> str:
        """Read its log up to a line with these words."""
        for line in self._stderr:
            self.said.append(line.rstrip("\n"))
            if words in line:
                return line
        raise AssertionError(f"it ended without saying {words!r}: {self.said}")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        """Wait for its end; gives its exit code."""
        self.said += self._stderr.read().splitlines()
        return self._process.wait()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._stderr.close()


class Peer:
    """What QEMU would be on a stream port."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(str(path))

    def send(self, frame: bytes) -> None:
        self._socket.sendall(struct.pack(">I", len(frame)) + frame)

    def receive(self) -> bytes:
        (length,) = struct.unpack(">I", self._exactly(4))
        return self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self._socket.recv(size - len(data))
            assert chunk, "the proxy closed the connection"
            data += chunk
        return data

    def close(self) -> None:
        self._socket.close()


class Pair:
    """A daemon between three stream ports, each with a peer."""

    def __init__(self, directory: Path, proxy: str = "", backend: str = DETERMINISTIC) -> None:
        sides = ("client", "primary", "secondary")
        ports = {side: f"stream+unix://{directory / side}.sock?listen=yes" for side in sides}
        ports["client"] += "&reconnect=0s"
        self.path = write_config(directory, ports, proxy, backend)
        self.process = Process(self.path)
        self.process.wait_for("started: ")
        self.client, self.primary, self.secondary = peers = [
            Peer(directory / f"{side}.sock") for side in sides
        ]
        for _ in peers:
            self.process.wait_for(": connected")
        self.talk = Conversation(Clock(1000.0))

    def close(self) -> None:
        for peer in (self.client, self.primary, self.secondary):
            peer.close()
        self.process.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """A protected pair."""
    made = Pair(tmp_path)
    yield made
    made.close()


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "colo_compare", *argv], capture_output=True, text=True, check=False
    )


def test_from_the_first_frame_to_the_last(pair: Pair) -> None:
    talk, sock = pair.talk, pair.process.socket
    question = talk.client.datagram(b"question").data
    pair.client.send(question)
    assert pair.primary.receive() == pair.secondary.receive() == question
    answer = talk.primary.datagram(b"answer").data
    pair.primary.send(answer)
    pair.secondary.send(talk.secondary.datagram(b"answer").data)
    assert pair.client.receive() == answer

    shown = command("status", "--socket", sock)
    assert (shown.returncode, shown.stdout.splitlines()[0]) == (cli.OK, "PROTECTED")
    status = json.loads(command("status", "--json", "--socket", sock).stdout)
    assert status["counters"]["released"]["matched"] == 1

    asked = command("checkpoint", "--socket", sock)
    assert (asked.returncode, asked.stdout) == (cli.OK, "asked for the checkpoint that begins epoch 2\n")

    moved = command("promote", "--socket", sock)
    assert moved.returncode == cli.OK
    assert moved.stdout.startswith("promoted: the guest on port stream+unix://")
    alone = talk.secondary.datagram(b"alone").data
    pair.secondary.send(alone)
    while pair.client.receive() != alone:  # its earlier answer may come once more, and an announcement
        pass

    shown = command("status", "--socket", sock)
    assert shown.returncode == cli.NEGATIVE
    assert shown.stdout.splitlines()[0] == "UNPROTECTED: the secondary is lost, one guest runs alone"
    refused = command("promote", "--socket", sock)
    assert (refused.returncode, refused.stdout) == (cli.NEGATIVE, "")
    assert re.fullmatch("colo-compare: not promoted: .*\n", refused.stderr)

    pair.process.signal(signal.SIGTERM)
    assert pair.process.end() == cli.OK
    assert "stopped: nothing was left behind" in pair.process.said[-1]


def test_a_client_port_that_is_gone_has_its_exit_code(pair: Pair) -> None:
    pair.client.close()
    assert pair.process.end() == cli.NO_PORT
    assert re.match(r"colo-compare: the client port stream\+unix://\S+ is gone", pair.process.said[-1])


def test_what_is_left_at_the_deadline_is_reported(tmp_path: Path) -> None:
    # A checkpoint that never ends: its program has to be ended, too.
    backend = 'backend = "command"\ncheckpoint = ["sleep", "1000"]'
    pair = Pair(tmp_path, 'compare_timeout = "50ms"', backend)
    try:
        pair.primary.send(pair.talk.primary.datagram(b"held").data)
        while not call(Path(pair.process.socket), "status")["held"]["frames"]:
            pass
        pair.process.signal(signal.SIGTERM)
        assert pair.process.end() == cli.OK
        assert "left behind are 1 held frames" in "".join(pair.process.said)
    finally:
        pair.close()


def test_a_broken_stream_is_no_end(pair: Pair) -> None:
    pair.primary.send(b"")  # a length of zero
    pair.process.wait_for("link lost")
    status = call(Path(pair.process.socket), "status")
    assert not status["ports"]["primary"]["connected"]
    pair.process.signal(signal.SIGTERM)
    assert pair.process.end() == cli.OK


@pytest.fixture
def _package_level() -> Iterator[None]:
    """Put the log level of the package back, which a daemon in this process has set."""
    package = logging.getLogger("colo_compare")
    level = package.level
    yield
    package.setLevel(level)


@pytest.mark.usefixtures("_package_level")
def test_a_second_daemon_on_the_same_socket(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(re.sub(r"stream\S+/(\w+)\.sock[^\"]*", r"memory:\1", pair.path.read_text()))
    assert cli.main(["run", "-c", str(other)]) == cli.NO_DAEMON
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith(f"colo-compare: another daemon answers on {pair.process.socket}")
    )


@pytest.mark.parametrize(
    ("url", "words"),
    [("packet:no-such-if", "no-such-if"), ("stream+unix:///no/such/dir/x?listen=yes", "/no/such/dir")],
)
@pytest.mark.usefixtures("_package_level")
def test_a_port_that_cannot_be_opened(
    tmp_path: Path, url: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config(tmp_path, {"client": url, "primary": "memory:p", "secondary": "memory:s"})
    assert cli.main(["run", "-c", str(path)]) == cli.NO_PORT
    err = capsys.readouterr().err
    assert err.startswith("colo-compare: ")
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.usefixtures("_package_level")
def test_a_backend_that_cannot_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ports = {side: f"memory:{side}" for side in ("client", "primary", "secondary")}
    path = write_config(tmp_path, ports, backend='backend = "command"\ncheckpoint = ["/no/such/program"]')
    assert cli.main(["run", "-c", str(path)]) == cli.NO_CHECKPOINTER
    assert "/no/such/program" in capsys.readouterr().err.splitlines()[-1]


def test_json_logs(tmp_path: Path) -> None:
    ports = {"client": "packet:no-such-if", "primary": "memory:p", "secondary": "memory:s"}
    path = write_config(tmp_path, ports)
    environ = os.environ | {"COLO_COMPARE_LOG__FORMAT": "json", "COLO_COMPARE_PORTS__CLIENT": "memory:c"}
    with subprocess.Popen(
        [sys.executable, "-m", "colo_compare", "run", "-c", str(path)],
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
    ) as process:
        assert process.stderr is not None
        started = json.loads(process.stderr.readline())
        process.send_signal(signal.SIGTERM)
        rest = [json.loads(line) for line in process.stderr]
    assert process.returncode == cli.OK
    assert started["message"].startswith("started: mode protect, client memory:c")
    assert rest[-1]["message"] == "stopped: nothing was left behind"
