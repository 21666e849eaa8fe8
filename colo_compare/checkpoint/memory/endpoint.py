"""Where a secondary's end listens, and how a primary's end gets there: ``unix:``, ``tcp:``, ``tls:``.

TLS asks both sides for a certificate of the same authority. Who can reach the secondary's end can overwrite
and kill the guest: plain TCP belongs on a network of its own.
"""

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from colo_compare.checkpoint.memory.channel import Channel, SocketChannel, TlsChannel
from colo_compare.checkpoint.socket_address import TLS, UNIX, SocketAddress
from colo_compare.errors import CheckpointerError

_AUTHORITY: Final = "ca-cert.pem"
_SEND_BUFFER: Final = 4 << 20  # bytes; the kernel gives as much of it as net.core.wmem_max allows


class Endpoint:
    """An address: ``unix:PATH``, ``tcp:HOST:PORT`` or ``tls:HOST:PORT``."""

    def __init__(self, text: str, tls_dir: str = "") -> None:
        """Read it. Raises ValueError with a message for people.

        `tls_dir` has ca-cert.pem, and client- or server-cert.pem and -key.pem, as QEMU names them.
        """
        self._address = SocketAddress.parse(text)
        if self._address.kind == TLS and not tls_dir:
            raise ValueError(f'"{text}" needs tls_dir, the directory with the certificates')
        self._tls_dir = tls_dir

    @property
    def unguarded(self) -> bool:
        """Whether nothing below finds damaged bytes: neither TLS, nor that they never leave the memory."""
        return self._address.kind not in (TLS, UNIX)

    def __str__(self) -> str:
        return str(self._address)

    async def connect(self) -> Channel:
        """Connect one channel. Raises CheckpointerError."""
        address = self._address
        try:
            if address.kind == UNIX:
                stream = await trio.open_unix_socket(address.path)
            else:
                stream = await trio.open_tcp_stream(address.host, address.port)
        except OSError as error:
            raise CheckpointerError(
                f"{self}: no secondary listens there ({error.strerror or error}): start its receiver first"
            ) from None
        return await self._dress(stream, server=False)

    async def listen(self) -> list[trio.SocketListener]:
        """Listen. Raises CheckpointerError."""
        address = self._address
        try:
            if address.kind != UNIX:
                return await trio.open_tcp_listeners(address.port, host=address.host)
            with suppress(FileNotFoundError):
                await _remove_dead_socket(address.path)
            listener = trio.socket.socket(socket.AF_UNIX)
            try:
                await listener.bind(address.path)
                listener.listen()
            except OSError:
                listener.close()
                raise
            return [trio.SocketListener(listener)]
        except OSError as error:
            raise CheckpointerError(f"{self}: cannot listen there: {error.strerror or error}") from None

    async def accept(self, stream: trio.SocketStream) -> Channel:
        """Make a channel of a connection that came in. Raises CheckpointerError."""
        return await self._dress(stream, server=True)

    async def _dress(self, stream: trio.SocketStream, *, server: bool) -> Channel:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if self._address.kind != TLS:
            return SocketChannel(stream)
        try:
            encrypted = trio.SSLStream(
                stream,
                self._context(server=server),
                server_hostname=None if server else self._address.host,
                server_side=server,
                https_compatible=True,
            )
            await encrypted.do_handshake()
        except (OSError, trio.BrokenResourceError) as error:
            await trio.aclose_forcefully(stream)
            raise CheckpointerError(
                f"{self}: no TLS: {error.__cause__ or error}; look at tls_dir {self._tls_dir} on both ends"
            ) from None
        return TlsChannel(encrypted)

    def _context(self, *, server: bool) -> ssl.SSLContext:
        purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
        context = ssl.create_default_context(purpose, cafile=str(Path(self._tls_dir, _AUTHORITY)))
        context.verify_mode = ssl.CERT_REQUIRED
        name = "server" if server else "client"
        context.load_cert_chain(
            Path(self._tls_dir, f"{name}-cert.pem"), Path(self._tls_dir, f"{name}-key.pem")
        )
        return context


async def _remove_dead_socket(path: str) -> None:
    """Remove a socket that nobody listens on any more; another process's stays, and bind() says so."""
    try:
        stream = await trio.open_unix_socket(path)
    except ConnectionRefusedError:
        await trio.Path(path).unlink()
    else:
        await trio.aclose_forcefully(stream)
