"""`stream+unix:///PATH` and `stream+tcp://HOST:PORT`: QEMU's framing over one connection.

For filter-mirror, filter-redirector and colo-compare's chardevs (with ``vnet_hdr=yes`` where QEMU has
``vnet_hdr_support=on``), and for ``-netdev stream`` and ``-netdev socket`` (always ``vnet_hdr=no``).
"""

import logging
import socket
from typing import Final

import trio

from colo_compare.errors import PortClosed, PortUnavailable
from colo_compare.ports.port import FramePort, PortCounters
from colo_compare.ports.stream_batch import StreamBatches
from colo_compare.ports.stream_link import Address, Listener, address_text, connect, hung_up, listen
from colo_compare.wire.frame import VNET_HEADER_LEN, Frame

logger: Final = logging.getLogger(__name__)


class StreamPort(FramePort):
    """A connection to one peer, as its client or its server, made anew when it breaks.

    Pushes back: when it is not read, the peer cannot write. While there is no peer, what is sent is dropped
    and counted. With ``reconnect=0`` the first loss of the peer is the last: the port is gone then.
    """

    def __init__(
        self, url: str, address: Address, listen: bool = False, vnet_hdr: bool = False, reconnect: float = 1.0
    ) -> None:
        self.url = url
        self.header_len = VNET_HEADER_LEN if vnet_hdr else 0
        self.counters = PortCounters()
        self.pushes_back = True
        self.connected = False
        self.refused_peers = 0  # that came while there was one already
        self._address = address
        self._listens = listen
        self._reconnect = reconnect
        self._gone = "the port is not open"
        self._listener: Listener | None = None
        self._keeper = trio.CancelScope()  # of the task that makes connections
        self._socket: socket.socket | None = None
        self._changed = trio.Event()  # set, and made anew, when the link comes, breaks or is given up
        self._batches = StreamBatches(vnet_hdr, self.counters)

    # The link

    async def open(self) -> None:
        """Open it. Raises PortUnavailable; a peer that is not there yet is waited for, unless reconnect=0."""
        if self._listens:
            self._listener = await listen(self._address, self.url)
        elif not self._reconnect:
            try:
                self._establish(await connect(self._address))
            except OSError as error:
                why = error.strerror or str(error)
                raise PortUnavailable(
                    f"{self.url}: nobody answers on {address_text(self._address)} ({why}): start it "
                    "first, or let reconnect=SECONDS wait for it"
                ) from None
        self._gone = ""
        if self._listens or self._reconnect:
            trio.lowlevel.spawn_system_task(self._keep_linked, name=f"link of {self.url}")
        await trio.lowlevel.checkpoint()

    async def wait_connected(self) -> None:
        """Wait until there is a peer. Raises PortClosed."""
        await trio.lowlevel.checkpoint()
        while not self.connected:
            self._raise_if_gone()
            await self._changed.wait()

    async def _keep_linked(self) -> None:
        """Make connections until the port is closed."""
        with self._keeper:
            if self._listener is None:
                await self._keep_connecting()
            else:
                await self._keep_accepting(self._listener)

    async def _keep_connecting(self) -> None:
        told = False
        while True:
            try:
                sock = await connect(self._address)
            except OSError as error:
                if not told:
                    logger.info("%s: waiting for the other end: %s", self.url, error.strerror or error)
                    told = True
            else:
                told = False
                self._establish(sock)
                while self.connected:
                    await self._changed.wait()
            await trio.sleep(self._reconnect)

    async def _keep_accepting(self, listener: Listener) -> None:
        while True:
            try:
                peer = await listener.accept()
            except trio.ClosedResourceError:
                return
            if self._socket is not None and hung_up(self._socket):
                # Nobody has read so far, so nobody has noticed. What it said last is kept.
                while self._read():
                    pass
            if self.connected:
                self.refused_peers += 1
                logger.warning("%s: a second peer was refused", self.url)
                peer.close()
            elif self._gone:
                peer.close()
            else:
                self._establish(peer)

    def _establish(self, sock: socket.socket) -> None:
        self._socket = sock
        self._batches.begin()
        self.connected = True
        logger.info("%s: connected", self.url)
        self._announce_change()

    def _lose(self, why: str) -> None:
        """Give up the link that is broken, and the port if it may not have another."""
        sock = self._socket
        if sock is not None:
            self._socket = None
            trio.lowlevel.notify_closing(sock)
            sock.close()
        self.connected = False
        self.counters.resets += 1
        logger.warning("%s: link lost: %s", self.url, why)
        if not self._reconnect:
            self._gone = why
        self._announce_change()

    def _announce_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _raise_if_gone(self) -> None:
        if self._gone:
            raise PortClosed(f"{self.url}: {self._gone}")

    async def aclose(self) -> None:
        """Close it. Calls that wait raise PortClosed."""
        self._gone = self._gone or "the port was closed"
        self.connected = False
        self._keeper.cancel()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._socket is not None:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
            self._socket = None
        self._batches.decoded = []
        self._announce_change()
        await trio.lowlevel.checkpoint()

    # Receiving

    async def receive_batch(self) -> list[bytes]:
        """Wait until there are frames, then give those that are there now."""
        if self._batches.decoded:  # by whoever looked whether the link still lives
            await trio.lowlevel.checkpoint()
            return self._batches.take()
        while True:
            sock = self._socket
            if sock is None:
                self._raise_if_gone()
                await self._changed.wait()
                continue
            try:
                await trio.lowlevel.wait_readable(sock)
            except trio.ClosedResourceError:
                continue  # of the link, or of the port: look again
            self._read()
            if self._batches.decoded:
                return self._batches.take()

    @property
    def descriptor(self) -> int:
        """The connection's file descriptor, -1 while there is no peer."""
        return -1 if self._socket is None else self._socket.fileno()

    def receive_now(self) -> list[bytes]:
        """Give the frames that are there now, one read at most."""
        if not self._batches.decoded and not self._read() and not self._batches.decoded:
            self._raise_if_gone()
        return self._batches.take()

    def drain(self) -> list[bytes]:
        """Give all frames that are there now."""
        while self._read():
            pass
        if not self._batches.decoded:
            self._raise_if_gone()
        return self._batches.take()

    def _read(self) -> bool:
        """Read once. False: there was nothing, or the link is lost."""
        sock = self._socket
        if sock is None:
            return False
        there = self._batches.read(sock)
        if self._batches.failure:
            self._lose(self._batches.failure)
        return there

    # Sending

    def send_batch(self, frames: list[Frame], start: int = 0) -> int:
        """Send frames[start:]; give the index of the first one not taken."""
        self._raise_if_gone()
        sock = self._socket
        if sock is not None:
            start = self._batches.send(sock, frames, start)
            if not self._batches.failure:
                return start
            self._lose(self._batches.failure)
            self._raise_if_gone()
        self.counters.dropped_send += len(frames) - start
        return len(frames)

    async def wait_writable(self) -> None:
        """Wait until send_batch can take at least one more frame; without a peer it takes, and drops, any."""
        self._raise_if_gone()
        sock = self._socket
        if sock is None:
            await trio.lowlevel.checkpoint()
            return
        try:
            await trio.lowlevel.wait_writable(sock)
        except trio.ClosedResourceError:
            self._raise_if_gone()
