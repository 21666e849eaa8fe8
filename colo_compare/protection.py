"""How a guest that runs alone gets a new secondary, while it serves.

An attempt has two halves. First the port is opened and the backend makes the pair. The proxy goes on as it
is, so whatever fails there leaves nothing behind but a port to close. Then the port becomes the secondary's
link, the core asks for a checkpoint, and the commit protects the pair. Before that commit the new secondary
is lost as any other is.
"""

import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from colo_compare.checkpoint.contract import Checkpointer, NewSecondary
from colo_compare.core.settings import PROTECT
from colo_compare.core.sides import SECONDARY
from colo_compare.errors import ColoCompareError, PortError, ProtectionFailed
from colo_compare.failover import FENCING_LIMIT, describe
from colo_compare.link import LOST, Link
from colo_compare.ports.port import FramePort

if TYPE_CHECKING:
    from colo_compare.loop import Loop

logger: Final = logging.getLogger(__name__)

# A guest that was started has opened its network long ago. Without this limit an operator who forgot to start
# it would wait for as long as a copy may take.
PEER_LIMIT: Final = 10.0  # seconds


class Protection:
    """Attaches new secondaries, one at a time."""

    def __init__(self, loop: "Loop", checkpointer: Checkpointer) -> None:
        self._loop = loop
        self._checkpointer = checkpointer
        self._scope: trio.CancelScope | None = None  # of the attempt under way
        self._given_up = ""  # why that was cancelled
        self.pairing = False  # the backend makes the pair: a secondary that it speaks of is the new one
        self._link: Link | None = None  # the new secondary, in the second half
        self._news = trio.Event()  # set, and replaced, when the core has told something
        self.url = ""  # of the port that is being attached, "" without an attempt
        self.since = 0.0  # when the attempt began

    @property
    def forming(self) -> bool:
        """Whether an attempt is in its first half: nothing depends on the new guest."""
        return self._scope is not None and self._link is None

    def lost_link(self) -> Link:
        """Give the link whose place a new secondary takes. Raises ProtectionFailed while there is one."""
        secondary = self._loop.secondary
        if secondary is not None:
            raise ProtectionFailed(
                f"there is a secondary, on port {secondary.port.url} (mode {self._loop.proxy.mode})"
            )
        return next(link for link in self._loop.links if link.role == LOST)

    async def protect(
        self,
        port: FramePort,
        options: msgspec.Struct,
        patience: float = math.inf,
        client: FramePort | None = None,
    ) -> None:
        """Protect the guest that runs alone with the guest behind this port, which is not open yet.

        `options`: an instance of the checkpointer's Options. `client`: the client's port from now on, not
        open yet, where the old one went with the old primary and is to be at another place. Returns when the
        pair is protected. Raises ProtectionFailed, PortError or ConfigError when that comes to nothing, or is
        not done after `patience` seconds: the guest runs alone as before.
        """
        if self._scope is not None:
            raise ProtectionFailed(
                f"port {self.url} is being attached already, for {trio.current_time() - self.since:.0f} s"
            )
        self.url = port.url
        self.since = trio.current_time()
        self._given_up = f"not done within {patience:g} s"
        try:
            with trio.CancelScope(deadline=self.since + patience) as self._scope:
                await self._join(port, options, client)
                return
            if self._link is not None:
                self._loop.failover.report(self._link, self._given_up)
            raise ProtectionFailed(self._given_up)
        except ColoCompareError as error:
            logger.error("no new secondary on port %s: %s", port.url, error)  # noqa: TRY400 - a line for people
            raise
        finally:
            self._scope = None
            self._link = None
            self.url = ""

    async def _join(self, port: FramePort, options: msgspec.Struct, client: FramePort | None) -> None:
        logger.info("port %s is to be a new secondary's", port.url)
        # The backend may still be at the other guest's grave, and the port that is reopened in our hands.
        await self._loop.failover.settled()
        name = self._check()
        if client is not None and not self._checkpointer.releases_by_port:
            raise ProtectionFailed(f"the client's port ({self._loop.client.port.url}) did not go: leave it")
        mode = self._loop.proxy.mode
        await port.open()
        try:
            await _wait_for_peer(port, "start the new guest first")
            connect_client = partial(self._connect_client, client)
            await self._form_pair(NewSecondary(name, port.url, options, connect_client))
            if self._loop.proxy.mode != mode:
                await self._dissolve_pair()
        except BaseException:
            with trio.CancelScope(shield=True):
                await port.aclose()
            raise
        self._attach(Link(SECONDARY, port, name))
        await self._first_commit()

    def _check(self) -> str:
        """Give the name of the link to replace. Raises ProtectionFailed or ConfigError."""
        loop = self._loop
        name = self.lost_link().name
        if loop.stopping:
            raise ProtectionFailed("the proxy is stopping")
        if loop.checkpointing.ended:
            raise ProtectionFailed(f"the checkpointer has ended ({loop.checkpointing.ended}): start again")
        if not self._checkpointer.capabilities.can_protect:
            raise ProtectionFailed(
                "this checkpointer cannot take a new secondary while it runs: swap the two ports in the "
                "configuration if need be, and start again"
            )
        self._checkpointer.check_mode(PROTECT)
        return name

    async def _form_pair(self, new: NewSecondary) -> None:
        self.pairing = True
        try:
            await self._checkpointer.protect(new)
        except ColoCompareError:
            raise
        except Exception as error:  # a third party's code
            raise ProtectionFailed(describe(error)) from error
        finally:
            self.pairing = False

    async def _connect_client(self, port: FramePort | None) -> None:
        """Let what is released go out by the client's port again, or by this one in its place."""
        loop = self._loop
        hint = "what the guest that is left listens on must be the client's port"
        if port is None:
            await _wait_for_peer(loop.client.port, hint)
        else:
            await port.open()
            try:
                await _wait_for_peer(port, hint)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await port.aclose()
                raise
            old = loop.reconnect_client(port)
            await old.port.aclose()
        loop.hear_again()

    async def _dissolve_pair(self) -> None:
        """Let the pair be none again, as the operator wants something else now. Raises ProtectionFailed."""
        with trio.CancelScope(shield=True), trio.move_on_after(FENCING_LIMIT):
            try:
                await self._checkpointer.abandon(SECONDARY)
            except Exception:  # a third party's code
                logger.exception("the checkpointer could not abandon the new guest")
        raise ProtectionFailed(f"mode {self._loop.proxy.mode} was chosen meanwhile")

    def _attach(self, link: Link) -> None:
        """Let the link be the secondary's. Nothing waits in here: the pair is made, and must not be lost."""
        self._link = link
        failure = ""
        try:
            link.port.drain()  # of a life that nobody watched
        except (PortError, OSError) as error:
            failure = str(error)
        self._loop.attach(link)
        if failure:
            self._loop.failover.report(link, failure)

    async def _first_commit(self) -> None:
        """Wait for the checkpoint that protects the pair. Raises ProtectionFailed when it is lost before."""
        loop, link = self._loop, self._link
        assert link is not None
        while not loop.proxy.protected:
            if link.failure:
                raise ProtectionFailed(f"the new secondary was lost before the first commit: {link.failure}")
            if loop.proxy.mode != PROTECT:
                raise ProtectionFailed(f"mode {loop.proxy.mode} was chosen before the first commit")
            await self._news.wait()
        logger.warning("protected: the guest on port %s is the secondary now", link.port.url)

    def note_news(self) -> None:
        """Note that the core has told something: it may be what an attempt waits for."""
        self._news.set()
        self._news = trio.Event()

    def give_up(self, why: str) -> None:
        """End the attempt under way, if there is one."""
        if self._scope is not None:
            self._given_up = why
            self._scope.cancel()


async def _wait_for_peer(port: FramePort, hint: str) -> None:
    """Wait until somebody is at the other end. Raises ProtectionFailed, PortClosed."""
    with trio.move_on_after(PEER_LIMIT):
        await port.wait_connected()
        return
    raise ProtectionFailed(f"nobody is at the other end of {port.url} within {PEER_LIMIT:g} s: {hint}")
