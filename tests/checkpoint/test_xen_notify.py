"""The xen-notify backend against a scripted toolstack, over real TCP."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from colo_compare.checkpoint.contract import Figures
from colo_compare.checkpoint.xen_notify import XenNotifyCheckpointer, XenNotifyOptions
from colo_compare.core.actions import CheckpointRequest
from colo_compare.core.sides import SECONDARY
from colo_compare.errors import CheckpointerError, ConfigError, PromotionFailed
from colo_compare.testing.checkpointer_contract import check_checkpointer

HOST = "127.0.0.1"
INIT = b"\x00\x00\x00\x19COLO_USERSPACE_PROXY_INIT"
WELCOME = b"\x00\x00\x00\x19COLO_COMPARE_GET_XEN_INIT"
ASK = b"\x00\x00\x00\x0dDO_CHECKPOINT"
MADE = b"\x00\x00\x00\x0fCOLO_CHECKPOINT"


@pytest.fixture
def port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        number: int = sock.getsockname()[1]
        return number


class Proxy:
    """The handlers: they note what is reported."""

    def __init__(self) -> None:
        self.reports: list[str] = []
        self.epoch = 0
        self.gate = trio.Event()  # commits are handled only when it is set
        self.gate.set()
        self.changed = trio.Event()

    def note(self, report: str) -> None:
        self.reports.append(report)
        self.changed.set()
        self.changed = trio.Event()

    async def wait_for(self, *reports: str) -> None:
        with trio.fail_after(5):
            while self.reports != list(reports):
                await self.changed.wait()

    async def begun(self) -> int:
        self.epoch += 1
        self.note(f"begun {self.epoch}")
        return self.epoch

    async def committed(self, epoch: int, figures: Figures) -> None:
        self.epoch = epoch
        self.note(f"committed {epoch}")
        await self.gate.wait()

    async def failed(self, epoch: int, detail: str, *, secondary_intact: bool) -> None:
        self.note(f"failed {epoch}, {'intact' if secondary_intact else 'not intact'}: {detail}")

    async def paused(self, epoch: int) -> None:
        raise AssertionError

    async def loaded(self, epoch: int) -> None:
        raise AssertionError

    async def guest_lost(self, side: int, detail: str) -> None:
        raise AssertionError


class Toolstack:
    """Xen's side of the connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.send = stream.send_all
        self.receive = stream.receive_some
        self.aclose = stream.aclose

    @classmethod
    @asynccontextmanager
    async def connected(cls, port: int) -> AsyncIterator["Toolstack"]:
        """Connect as Xen does, as soon as somebody listens."""
        stream: trio.SocketStream | None = None
        with trio.fail_after(5):
            while stream is None:
                try:
                    stream = await trio.open_tcp_stream(HOST, port)
                except OSError:
                    await trio.sleep(0.001)
        async with stream:
            await stream.send_all(INIT)
            assert await stream.receive_some(len(WELCOME)) == WELCOME
            yield cls(stream)


@asynccontextmanager
async def running(port: int) -> AsyncIterator[tuple[XenNotifyCheckpointer, Proxy]]:
    backend = XenNotifyCheckpointer(XenNotifyOptions(listen=f"{HOST}:{port}"))
    proxy = Proxy()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.run, proxy)
        await wait_all_tasks_blocked()
        yield backend, proxy
        nursery.cancel_scope.cancel()


def request(epoch: int) -> CheckpointRequest:
    return CheckpointRequest(epoch, ("payload",), "")


async def test_it_fulfils_the_contract(port: int) -> None:
    async def obey() -> None:
        while True:
            with suppress(trio.BrokenResourceError):
                async with Toolstack.connected(port) as xen:
                    while data := await xen.receive(len(ASK)):
                        assert data == ASK
                        await xen.send(MADE)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(obey)
        await check_checkpointer(
            lambda: XenNotifyCheckpointer(XenNotifyOptions(listen=f"{HOST}:{port}")),
            make_unable=lambda: XenNotifyCheckpointer(XenNotifyOptions(listen=f"192.0.2.77:{port}")),
        )
        nursery.cancel_scope.cancel()


async def test_a_checkpoint_that_was_asked_for(port: int) -> None:
    async with running(port) as (backend, proxy), trio.open_nursery() as nursery:
        assert backend.figures()["connected"] is False
        async with Toolstack.connected(port) as xen:
            assert backend.ready
            nursery.start_soon(backend.request, request(1))
            assert await xen.receive(100) == ASK
            assert proxy.reports == []
            for byte in MADE:  # in any portions
                await xen.send(bytes([byte]))
            await proxy.wait_for("committed 1")
            assert backend.figures() == {"connected": True, "requests": 1, "committed": 1}


async def test_a_checkpoint_that_xen_makes_by_itself(port: int) -> None:
    async with running(port) as (backend, proxy), Toolstack.connected(port) as xen:
        await xen.send(MADE + MADE)
        await proxy.wait_for("begun 1", "committed 1", "begun 2", "committed 2")
        # A request for it that was under way already.
        await backend.request(request(2))
        assert backend.figures()["requests"] == 0


async def test_a_cancelled_request_becomes_one_of_xen_s_own(port: int) -> None:
    async with running(port) as (backend, proxy), Toolstack.connected(port) as xen:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.request, request(1))
            assert await xen.receive(100) == ASK
            nursery.cancel_scope.cancel()
        await xen.send(MADE)
        await proxy.wait_for("begun 1", "committed 1")


async def test_the_end_of_a_cancelled_request_s_checkpoint_is_not_that_of_the_next(port: int) -> None:
    async with running(port) as (backend, proxy), Toolstack.connected(port) as xen:
        proxy.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.request, request(1))
            assert await xen.receive(100) == ASK
            await xen.send(MADE)
            await proxy.wait_for("committed 1")
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.request, request(2))
            assert await xen.receive(100) == ASK
            proxy.gate.set()
            await wait_all_tasks_blocked()
            await xen.send(MADE)
        assert proxy.reports == ["committed 1", "committed 2"]


async def test_xen_goes_away_in_the_middle_and_comes_back(port: int) -> None:
    failed = "failed 1, not intact: Xen's toolstack is gone: it closed the connection"
    async with running(port) as (backend, proxy), trio.open_nursery() as nursery:
        async with Toolstack.connected(port) as xen:
            nursery.start_soon(backend.request, request(1))
            assert await xen.receive(100) == ASK
        await proxy.wait_for(failed)
        assert backend.figures()["connected"] is False
        with pytest.raises(CheckpointerError, match="not connected"):
            await backend.request(request(1))
        async with Toolstack.connected(port) as xen:  # a new pair, whose first checkpoint it makes by itself
            assert backend.ready
            await xen.send(MADE)
            await proxy.wait_for(failed, "begun 1", "committed 1")


async def test_who_connects_again_takes_the_place_of_who_was_there(port: int) -> None:
    connected = Toolstack.connected
    async with running(port) as (backend, proxy), connected(port) as first, connected(port) as second:
        assert await first.receive(1) == b""
        await second.send(MADE)
        await proxy.wait_for("begun 1", "committed 1")
        assert backend.ready


async def test_what_means_nothing_is_ignored(port: int, caplog: pytest.LogCaptureFixture) -> None:
    async with running(port) as (backend, proxy), Toolstack.connected(port) as xen:
        await xen.send(b"\x00\x00\x00\x05HELLO" + MADE)
        await proxy.wait_for("begun 1", "committed 1")
        assert backend.ready
    assert "b'HELLO'" in caplog.text


async def test_what_is_no_message_ends_the_connection(port: int, caplog: pytest.LogCaptureFixture) -> None:
    async with running(port) as (backend, _), Toolstack.connected(port) as xen:
        await xen.send(b"GET / HTTP/1.0\r\n\r\n")
        assert await xen.receive(1) == b""
        assert not backend.ready
    assert "another protocol" in caplog.text


async def test_it_promotes_nobody_and_abandons_in_peace(port: int) -> None:
    async with running(port) as (backend, _):
        with pytest.raises(PromotionFailed, match="Xen's toolstack does that"):
            await backend.promote(SECONDARY)
        await backend.abandon(SECONDARY)


@pytest.mark.parametrize("listen", ["9010", "host:", "host:70000", "host:0", ":9010"])
def test_addresses_that_are_none(listen: str) -> None:
    with pytest.raises(ConfigError, match="write HOST:PORT"):
        XenNotifyCheckpointer(XenNotifyOptions(listen=listen))


async def test_an_address_that_is_taken(port: int) -> None:
    async with running(port):
        with pytest.raises(CheckpointerError, match="cannot listen"):
            await XenNotifyCheckpointer(XenNotifyOptions(listen=f"{HOST}:{port}")).run(Proxy())
