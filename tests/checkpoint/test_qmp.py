"""The monitor's client, against a scripted peer and against real QEMU."""

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio

from colo_compare.checkpoint.qmp import Monitor
from colo_compare.checkpoint.qmp_address import MonitorAddress
from colo_compare.checkpoint.qmp_protocol import MonitorEvent
from colo_compare.errors import MonitorError, MonitorRefused, MonitorTimeout
from tests.checkpoint.scripted_monitor import GREETING, Peer, serve

QEMU = "qemu-system-x86_64"
PATIENCE = 20.0  # seconds, for what must not run into it
IMPATIENCE = 0.02  # for what must


class Client:
    """A monitor's client that runs, and what it saw, in order."""

    def __init__(self, address: str, timeout: float) -> None:
        self.seen: list[str] = []
        self.events: list[MonitorEvent] = []
        self.monitor = Monitor(MonitorAddress.parse(address), self._note, timeout=timeout)
        self.ending: MonitorError | None = None

    def _note(self, event: MonitorEvent) -> None:
        self.seen.append(event.name)
        self.events.append(event)

    async def ask(self, name: str) -> None:
        self.seen.append(f"reply to {name}: {await self.monitor.execute(name)}")

    async def run(self) -> None:
        try:
            await self.monitor.run()
        except MonitorError as error:
            self.ending = error


@asynccontextmanager
async def connected(address: str, *, patience: float = PATIENCE, tls_dir: str = "") -> AsyncIterator[Client]:
    client = Client(address, patience)
    try:
        await client.monitor.connect(tls_dir)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            yield client
            nursery.cancel_scope.cancel()
    finally:
        await client.monitor.aclose()


Connect = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def scripted(tmp_path: Path, nursery: trio.Nursery) -> Connect:
    """Give a function that connects to a peer that follows a script: ``scripted(script, patience=...)``."""

    @asynccontextmanager
    async def scripted(
        script: Callable[[Peer], Awaitable[None]], *, patience: float = PATIENCE
    ) -> AsyncIterator[Client]:
        path = tmp_path / "qmp"
        await serve(nursery, path, script)
        async with connected(f"unix:{path}", patience=patience) as client:
            yield client

    return scripted


async def test_capabilities_are_agreed_on(scripted: Connect) -> None:
    heard = []

    async def script(peer: Peer) -> None:
        heard.append(await peer.greet())
        await peer.hear()

    async with scripted(script) as client:
        assert client.monitor.version == (7, 2, 22)
        assert client.monitor.out_of_band
    assert heard[0]["execute"] == "qmp_capabilities"
    assert heard[0]["arguments"] == {"enable": ["oob"]}


async def test_a_command_is_answered(scripted: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        command = await peer.hear()
        assert command == {"execute": "query-x", "arguments": {"a": 1}, "id": command["id"]}
        await peer.say({"return": {"b": 2}, "id": command["id"]})
        command = await peer.hear()
        await peer.say({"error": {"class": "GenericError", "desc": "no such y"}, "id": command["id"]})

    async with scripted(script) as client:
        assert await client.monitor.execute("query-x", {"a": 1}) == {"b": 2}
        with pytest.raises(MonitorRefused, match=r"/qmp: query-y: no such y$"):
            await client.monitor.execute("query-y")


async def test_replies_find_their_commands_in_whatever_order(scripted: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        commands = [await peer.hear() for _ in range(3)]
        for command in (commands[1], commands[2], commands[0]):
            await peer.say({"return": command["execute"], "id": command["id"]})

    async with scripted(script) as client, trio.open_nursery() as nursery:
        for name in ("a", "b", "c"):
            nursery.start_soon(client.ask, name)
    assert sorted(client.seen) == ["reply to a: a", "reply to b: b", "reply to c: c"]


async def test_an_event_is_told_before_whatever_came_behind_it(scripted: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        command = await peer.hear()
        reply = {"return": {}, "id": command["id"]}
        await peer.say(peer.event("STOP"), peer.event("RESUME", why="x"), reply, peer.event("STOP"))
        await peer.hear()

    async with scripted(script) as client:
        await client.ask("stop")
    assert client.seen[:2] == ["STOP", "RESUME"]
    assert "reply to stop: {}" in client.seen[2:]
    assert [event.at for event in client.events[:2]] == [1.0, 2.0]
    assert client.events[1].data == {"why": "x"}


async def test_events_before_the_first_reply_are_told(scripted: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(GREETING)
        command = await peer.hear()
        await peer.say(peer.event("RESET"))
        await peer.say({"return": {}, "id": command["id"]})
        await peer.hear()

    async with scripted(script) as client:
        assert client.seen == ["RESET"]


async def test_out_of_band_where_it_was_agreed_on(scripted: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        command = await peer.hear()
        assert command["exec-oob"] == "migrate-pause"
        await peer.say({"return": {}, "id": command["id"]})

    async with scripted(script) as client:
        assert await client.monitor.execute("migrate-pause", out_of_band=True) == {}


async def test_silence_is_a_time_out_and_a_late_reply_nobody_s(scripted: Connect) -> None:
    late = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        command = await peer.hear()
        await late.wait()
        await peer.say({"return": "late", "id": command["id"]})
        command = await peer.hear()
        await peer.say({"return": "in time", "id": command["id"]})

    async with scripted(script, patience=0.2) as client:
        with pytest.raises(MonitorTimeout, match=r"no answer to stop within 0.2 s$"):
            await client.monitor.execute("stop")
        late.set()
        assert await client.monitor.execute("cont") == "in time"


async def test_a_disconnection_ends_every_command_with_its_reason(scripted: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.hear()
        await peer.stream.aclose()

    errors = []

    async def ask(client: Client) -> None:
        with pytest.raises(MonitorError) as caught:
            await client.monitor.execute("query-x")
        errors.append(str(caught.value))

    async with scripted(script) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, client)
            nursery.start_soon(ask, client)
        await ask(client)  # one that comes too late
        assert client.monitor.gone.is_set()
    assert len(errors) == 3
    assert set(errors) == {f"query-x has no answer: {client.ending}"}
    assert "closed" in errors[0] or "broke" in errors[0]


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(MonitorError, match=r"no monitor answers \(No such file or directory\)"):
        async with connected(f"unix:{tmp_path}/none"):
            pass


async def test_somebody_else_is_the_monitor_s_client(scripted: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.hear()

    with pytest.raises(MonitorTimeout, match="has it another client already"):
        async with scripted(script, patience=IMPATIENCE):
            pass


@pytest.mark.parametrize(
    "first", [b"SSH-2.0-OpenSSH_9.2\r\n", b'{"return": {}}\n'], ids=["ssh", "no greeting"]
)
async def test_something_else_answers(scripted: Connect, first: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.stream.send_all(first)
        await peer.hear()

    with pytest.raises(MonitorError, match="no monitor"):
        async with scripted(script):
            pass


# Real QEMU


@contextmanager
def qemu(directory: Path, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed")
    command = [QEMU, "-machine", "none", "-nodefaults", "-no-user-config", "-display", "none", *argv]
    with (directory / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield process
        finally:
            process.kill()


@asynccontextmanager
async def patiently(address: str, tls_dir: str = "") -> AsyncIterator[Client]:
    """Connect to a QEMU that is just starting."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                async with connected(address, tls_dir=tls_dir) as client:
                    yield client
                    return
            except MonitorError as error:
                if "no monitor answers" not in str(error):
                    raise
                await trio.sleep(0.01)


async def test_real_qemu_answers(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    with qemu(tmp_path, "-qmp", f"unix:{path},server=on,wait=off") as process:
        async with patiently(f"unix:{path}") as client:
            assert client.monitor.version >= (7, 0, 0)
            assert client.monitor.out_of_band
            version = await client.monitor.execute("query-version")
            assert version["qemu"]["major"] == client.monitor.version[0]
            with pytest.raises(MonitorRefused, match="command no-such has not been found"):
                await client.monitor.execute("no-such")
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(client.ask, "query-status")
            await client.ask("quit")
            await client.monitor.gone.wait()
        # `quit` answers, tells that it shuts down, and goes.
        assert "SHUTDOWN" in client.seen
        assert client.ending is not None
        assert process.wait(PATIENCE) == 0


async def test_real_qemu_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    with qemu(tmp_path, "-qmp", f"unix:{path},server=on,wait=off") as process:
        async with patiently(f"unix:{path}") as client:
            process.kill()
            with pytest.raises(MonitorError, match="query-status has no answer: unix:"):
                await client.monitor.execute("query-status")


async def test_real_qemu_over_tls(tmp_path: Path, free_port: int) -> None:
    make_certificates(tmp_path)
    argv = [
        "-object", f"tls-creds-x509,id=tls0,dir={tmp_path}/server,endpoint=server,verify-peer=on",
        "-chardev", f"socket,id=c,host=127.0.0.1,port={free_port},server=on,wait=off,tls-creds=tls0",
        "-mon", "chardev=c,mode=control",
    ]  # fmt: skip
    address = f"tls:127.0.0.1:{free_port}"
    with qemu(tmp_path, *argv):
        async with patiently(address, str(tmp_path / "client")) as client:
            await client.ask("query-status")
        (tmp_path / "client" / "client-cert.pem").unlink()
        with pytest.raises(MonitorError, match=r"no TLS with the monitor|the connection"):
            async with patiently(address, str(tmp_path / "client")):
                pass
        with pytest.raises(MonitorError, match=r"no TLS with the monitor: .*No such file"):
            async with patiently(address, str(tmp_path / "none")):
                pass


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_certificates(directory: Path) -> None:
    """Make an authority, and a certificate of it for each end, under the names that QEMU wants."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")

    def openssl(*argv: str) -> None:
        subprocess.run(["openssl", *argv], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "rsa:2048", "-nodes")
    openssl(
        "req",
        "-x509",
        *key,
        "-keyout",
        "ca.key",
        "-out",
        "ca-cert.pem",
        "-days",
        "2",
        "-subj",
        "/CN=authority",
    )
    for end, purpose in (("server", "serverAuth"), ("client", "clientAuth")):
        (directory / end).mkdir()
        shutil.copy(directory / "ca-cert.pem", directory / end)
        extensions = directory / f"{end}.ext"
        extensions.write_text(f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={purpose}\n")
        openssl("req", *key, "-keyout", f"{end}/{end}-key.pem", "-out", f"{end}.csr", "-subj", f"/CN={end}")
        openssl(
            "x509", "-req", "-in", f"{end}.csr", "-CA", "ca-cert.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", str(extensions), "-out", f"{end}/{end}-cert.pem",
        )  # fmt: skip
