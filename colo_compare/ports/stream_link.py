"""Connections for stream ports: how a listener is made, and how a peer is connected to."""

import errno
import select
import socket
from typing import Final

import trio

from colo_compare.errors import PortUnavailable
from colo_compare.ports.unix_path import UnixPath

_BACKLOG: Final = 4  # one peer, and a few more to be told at once that they are not wanted

_REASONS: Final = {
    errno.EADDRINUSE: "the address is in use by another process: end it, or use another port",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
    errno.EACCES: "this user may not bind that port: use one from 1024 on, or give CAP_NET_BIND_SERVICE",
}

Address = str | tuple[str, int]  # a path, or host and port


def address_text(address: Address) -> str:
    """Give an address as people write it."""
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Listener:
    """A listening socket, with its path if it has one."""

    def __init__(self, sock: socket.socket, path: UnixPath | None) -> None:
        self.socket: Final = sock
        self._path = path

    async def accept(self) -> socket.socket:
        """Give the next peer's socket, non-blocking. Raises trio.ClosedResourceError when closed."""
        while self.socket.fileno() >= 0:  # it may be closed while this task is about to run
            await trio.lowlevel.wait_readable(self.socket)
            try:
                peer, _ = self.socket.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                    await trio.sleep(1.0)  # out of descriptors or memory: the peer stays in the queue
                continue  # ECONNABORTED and the like: that peer is gone
            prepare(peer)
            return peer
        raise trio.ClosedResourceError

    def close(self) -> None:
        """Close it, and remove its path."""
        trio.lowlevel.notify_closing(self.socket)
        if self._path is not None:
            self._path.remove()
        self.socket.close()


async def listen(address: Address, url: str) -> Listener:
    """Make a listener. Raises PortUnavailable."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            path = UnixPath(sock, address, url)
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
        return Listener(sock, path)
    try:
        found = await trio.socket.getaddrinfo(
            address[0], address[1], type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise PortUnavailable(f"{url}: {address[0]} is no address here: {error.strerror}") from None
    family, _, _, _, place = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(place)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        why = _REASONS.get(error.errno or 0, error.strerror)
        raise PortUnavailable(f"{url}: cannot listen on {address_text(address)}: {why}") from None
    return Listener(sock, None)


async def connect(address: Address) -> socket.socket:
    """Connect to a peer; gives a non-blocking socket. Raises OSError."""
    if isinstance(address, str):
        await trio.lowlevel.checkpoint()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(address)  # at once, or EAGAIN with too many others waiting
        except OSError:
            sock.close()
            raise
        return sock
    stream = await trio.open_tcp_stream(*address)
    sock = socket.socket(fileno=stream.socket.detach())
    prepare(sock)
    return sock


def hung_up(sock: socket.socket) -> bool:
    """Say whether the peer has closed its end, whatever is still unread."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))


def prepare(sock: socket.socket) -> None:
    """Make a peer's socket ready for frames."""
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
