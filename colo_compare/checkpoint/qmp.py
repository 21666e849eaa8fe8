"""A client of QEMU's monitor on trio: commands, any number at a time, and events.

`run` reads. It gives each event to the callback before it looks at what came behind it, so whoever waits for
the reply to a command has seen every event that QEMU sent before that reply.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import trio

from colo_compare.checkpoint.qmp_address import MonitorAddress
from colo_compare.checkpoint.qmp_protocol import Greeting, MonitorEvent, MonitorProtocol, Reply
from colo_compare.checkpoint.socket_address import TLS
from colo_compare.errors import MonitorError, MonitorRefused, MonitorTimeout

_READ: Final = 65536  # bytes
_OUT_OF_BAND: Final = "oob"


class Monitor:
    """A connection to one monitor. A monitor serves one client at a time: give the proxy one of its own."""

    version: tuple[int, int, int]  # QEMU's; these from `connect` on
    out_of_band: bool  # whether commands can pass those that wait
    socket: trio.SocketStream  # below whatever is on it

    def __init__(
        self, address: MonitorAddress, on_event: Callable[[MonitorEvent], None], *, timeout: float
    ) -> None:
        """Take the address, what is to be called with each event, and how long a reply may take (seconds)."""
        self.address: Final = address
        self.gone = trio.Event()  # set when the connection has ended
        self._on_event = on_event
        self._timeout = timeout
        self._protocol = MonitorProtocol()
        self._waiting: dict[int, _Waiting] = {}
        self._sending = trio.Lock()
        self._why_gone = "it was never connected"
        self._stream: trio.abc.Stream | None = None

    async def connect(self, tls_dir: str = "") -> None:
        """Connect and agree on capabilities. Raises MonitorError."""
        try:
            with trio.fail_after(self._timeout):
                self._stream, self.socket = await self.address.connect(tls_dir)
                await self._greet()
        except trio.TooSlowError:
            raise MonitorTimeout(
                f"{self.address}: the monitor says nothing within {self._timeout:g} s: "
                "has it another client already, or does QEMU hang?"
            ) from None

    async def _greet(self) -> None:
        """Read the greeting, and leave the mode in which only capabilities can be negotiated."""
        (greeting, *_) = await self._receive()
        if not isinstance(greeting, Greeting):
            raise MonitorError(f"{self.address}: no monitor: it begins without a greeting")
        self.version = greeting.version
        self.out_of_band = _OUT_OF_BAND in greeting.capabilities
        enable = [_OUT_OF_BAND] if self.out_of_band else []
        _, said = self._protocol.command("qmp_capabilities", {"enable": enable})
        await self._send(said)
        while True:
            for message in await self._receive():
                if isinstance(message, MonitorEvent):
                    self._on_event(message)
                elif isinstance(message, Reply):
                    if message.refusal:
                        raise MonitorRefused(f"{self.address}: qmp_capabilities: {message.refusal}")
                    return

    async def _receive(self) -> list[Greeting | MonitorEvent | Reply]:
        assert self._stream is not None
        while True:
            try:
                data = await self._stream.receive_some(_READ)
                messages = self._protocol.receive(bytes(data))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise MonitorError(
                    f"{self.address}: the connection broke: {error.__cause__ or error}"
                ) from None
            except MonitorError as error:
                raise MonitorError(f"{self.address}: {error}") from None
            if not data:
                raise MonitorError(f"{self.address}: the connection was closed")
            if messages:
                return messages

    async def run(self) -> None:
        """Read until the connection ends. Raises MonitorError, which every command in flight gets too."""
        try:
            while True:
                for message in await self._receive():
                    self._take(message)
        except MonitorError as error:
            self._why_gone = str(error)
            raise
        finally:
            self.gone.set()
            for waiting in self._waiting.values():
                waiting.event.set()

    def _take(self, message: Greeting | MonitorEvent | Reply) -> None:
        if isinstance(message, MonitorEvent):
            self._on_event(message)
        elif isinstance(message, Reply) and message.id in self._waiting:
            waiting = self._waiting[message.id]
            waiting.reply = message
            waiting.event.set()

    async def execute(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        out_of_band: bool = False,
    ) -> Any:
        """Give a command and wait for what it returns. To be called while `run` runs.

        Raises MonitorRefused when QEMU says no, MonitorTimeout when it does not answer, MonitorError when
        it is gone.
        """
        number, said = self._protocol.command(name, arguments, out_of_band=out_of_band and self.out_of_band)
        waiting = self._waiting[number] = _Waiting()
        try:
            with trio.fail_after(self._timeout):
                if not self.gone.is_set():
                    await self._send(said)
                    await waiting.event.wait()
        except trio.TooSlowError:
            raise MonitorTimeout(f"{self.address}: no answer to {name} within {self._timeout:g} s") from None
        finally:
            del self._waiting[number]
        if waiting.reply is None:
            raise MonitorError(f"{name} has no answer: {self._why_gone}")
        if waiting.reply.refusal:
            raise MonitorRefused(f"{self.address}: {name}: {waiting.reply.refusal}")
        return waiting.reply.value

    async def _send(self, data: bytes) -> None:
        assert self._stream is not None
        # A monitor takes one byte each time that its socket is readable. Behind TLS it never sees the rest of
        # a record, which was read from the socket already (QEMU 7.2, monitor_can_read and QIOChannelTLS).
        portions = [bytes([byte]) for byte in data] if self.address.kind == TLS else [data]
        # `run` finds out, and tells, when the connection has ended: that is where the reason is known.
        async with self._sending:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                for portion in portions:
                    await self._stream.send_all(portion)

    async def aclose(self) -> None:
        """Let go of the monitor, which another client can then have."""
        if self._stream is not None:
            await trio.aclose_forcefully(self._stream)


class _Waiting:
    """A command whose reply has not come yet."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.reply: Reply | None = None
