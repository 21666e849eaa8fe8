"""One connection between the two ends: buffers out, bytes into buffers in."""

from abc import ABC, abstractmethod
from typing import Final

import trio

from colo_compare.checkpoint.memory.messages import Buffer

_MOST_BUFFERS: Final = 1024  # IOV_MAX
_TLS_PORTION: Final = 256 * 1024


class Channel(ABC):
    """Ordered bytes both ways. Every method raises trio.BrokenResourceError or ClosedResourceError."""

    @abstractmethod
    async def send(self, buffers: list[Buffer]) -> None:
        """Send all of it."""

    @abstractmethod
    async def receive_into(self, buffers: list[memoryview]) -> int:
        """Fill the buffers as far as there are bytes (at least one); gives how many, 0 at the end."""

    @abstractmethod
    async def aclose(self) -> None:
        """End it at once."""


class SocketChannel(Channel):
    """A unix or TCP socket: one vectored call for as much as the kernel takes, nothing is copied here."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._socket = stream.socket

    async def send(self, buffers: list[Buffer]) -> None:
        """Send all of it."""
        rest = buffers
        try:
            while rest:
                count = await self._socket.sendmsg(rest[:_MOST_BUFFERS])
                rest = _after(rest, count)
        except (OSError, trio.ClosedResourceError) as error:
            raise trio.BrokenResourceError(str(error)) from None

    async def receive_into(self, buffers: list[memoryview]) -> int:
        """Fill the buffers as far as there are bytes."""
        try:
            if len(buffers) == 1:
                return await self._socket.recv_into(buffers[0])
            return (await self._socket.recvmsg_into(buffers[:_MOST_BUFFERS]))[0]
        except (OSError, trio.ClosedResourceError) as error:
            raise trio.BrokenResourceError(str(error)) from None

    async def aclose(self) -> None:
        """End it at once."""
        await trio.aclose_forcefully(self._stream)


def _after(buffers: list[Buffer], count: int) -> list[Buffer]:
    """Give what is left when `count` bytes are sent."""
    index = 0
    while index < len(buffers) and count >= len(buffers[index]):
        count -= len(buffers[index])
        index += 1
    if not count:
        return buffers[index:]
    return [memoryview(buffers[index])[count:], *buffers[index + 1 :]]


class TlsChannel(Channel):
    """TLS over TCP. OpenSSL copies and encrypts in portions of 16 KiB, so nothing is saved by vectors."""

    def __init__(self, stream: "trio.SSLStream[trio.SocketStream]") -> None:
        self._stream = stream
        self._rest = memoryview(b"")

    async def send(self, buffers: list[Buffer]) -> None:
        """Send all of it."""
        await self._stream.send_all(b"".join(buffers))

    async def receive_into(self, buffers: list[memoryview]) -> int:
        """Fill the buffers as far as there are bytes."""
        if not self._rest:
            self._rest = memoryview(await self._stream.receive_some(_TLS_PORTION))
        count = 0
        for buffer in buffers:
            part = self._rest[: len(buffer)]
            buffer[: len(part)] = part
            self._rest = self._rest[len(part) :]
            count += len(part)
        return count

    async def aclose(self) -> None:
        """End it at once."""
        await trio.aclose_forcefully(self._stream)
