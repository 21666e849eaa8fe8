"""The checkpointer for guests that Xen's own COLO replicates: the proxy in the place of QEMU's colo-compare.

Xen's toolstack copies the guests and takes care of their lives. With colo-compare it talks over the socket
that QEMU calls ``notify_dev``, in four messages, each behind 4 bytes of big-endian length:

=============================  ========  ===============================================
``COLO_USERSPACE_PROXY_INIT``  from Xen  once, at the beginning
``COLO_COMPARE_GET_XEN_INIT``  to Xen    the answer to it
``DO_CHECKPOINT``              to Xen    the guests differ
``COLO_CHECKPOINT``            from Xen  the secondary has the state, and the primary resumes now
=============================  ========  ===============================================

(QEMU's net/colo-compare.c; Xen's libxl_colo_proxy.c and libxl_colo_save.c.) Xen sends the last one when the
secondary is ready to run from the new state, and waits for no answer before it lets the primary run again. So
nothing tells when the primary stopped, and what has not been read at that moment counts as sent in the new
epoch, which errs on the side of holding. It makes checkpoints by itself, too, at intervals.
"""

import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Final

import msgspec
import trio

from colo_compare.checkpoint.contract import Capabilities, Checkpointer, CheckpointHandlers, Figures
from colo_compare.core.actions import CheckpointRequest
from colo_compare.core.sides import SIDE_NAMES
from colo_compare.errors import CheckpointerError, ConfigError, FramingError, PromotionFailed
from colo_compare.wire.stream_framing import StreamDecoder

logger: Final = logging.getLogger(__name__)

INIT: Final = b"COLO_USERSPACE_PROXY_INIT"
INIT_ANSWER: Final = b"COLO_COMPARE_GET_XEN_INIT"
ASK: Final = b"DO_CHECKPOINT"
MADE: Final = b"COLO_CHECKPOINT"

_READ: Final = 4096  # bytes
_SHOWN: Final = 40  # bytes of a message that is none
_LISTEN: Final = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^:\[\]]+):([0-9]{1,5})")


class XenNotifyOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of the `xen-notify` backend."""

    # HOST:PORT, which the guest's configuration names as colo_checkpoint_host and colo_checkpoint_port
    listen: Annotated[str, msgspec.Meta(min_length=1)]


class XenNotifyCheckpointer(Checkpointer):
    """Asks Xen's toolstack for checkpoints, and learns from it when they are made."""

    Options = XenNotifyOptions
    capabilities = Capabilities(
        reports_pause=False,
        reports_load=False,
        copies_state=True,
        can_promote=False,
        can_fence=False,
        starts_by_itself=True,
    )

    def __init__(self, options: XenNotifyOptions) -> None:
        match = _LISTEN.fullmatch(options.listen)
        if match is None or not 0 < int(match[2]) < 1 << 16:
            raise ConfigError("$.checkpointer.listen", f'"{options.listen}" is no address: write HOST:PORT')
        self._options = options
        self._host = match[1].strip("[]")
        self._port = int(match[2])
        self._handlers: CheckpointHandlers | None = None
        self._peer: trio.SocketStream | None = None
        self._saying = trio.Lock()
        self._agreed = False  # the peer has begun as Xen's toolstack does
        self._asked: int | None = None  # the epoch that a request waits for
        self._over = trio.Event()  # set when its result is reported
        self._own_epoch = 0  # the last that Xen began by itself
        self._committed = 0
        self._requests = 0

    # Running

    async def run(self, handlers: CheckpointHandlers) -> None:
        """Listen, and serve one peer after the other, until cancelled. Raises CheckpointerError."""
        try:
            listeners = await trio.open_tcp_listeners(self._port, host=self._host)
        except OSError as error:
            raise CheckpointerError(
                f"checkpointer xen-notify cannot listen on {self._options.listen}: "
                f"{error.strerror or error}; use another address in $.checkpointer.listen"
            ) from None
        self._handlers = handlers
        try:
            await trio.serve_listeners(self._serve, listeners)
        finally:
            self._handlers = None
            self._agreed = False

    async def _serve(self, peer: trio.SocketStream) -> None:
        """Talk with a peer until it goes. The one that came last counts: who comes again has begun anew."""
        former, self._peer = self._peer, peer
        self._agreed = False
        if former is not None:
            logger.warning("xen-notify: another peer has connected; the one before it is left")
            await trio.aclose_forcefully(former)
        logger.info("xen-notify: a peer has connected")
        why = "it closed the connection"
        try:
            await self._listen_to(peer)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            why = f"the connection broke: {error.__cause__ or error}"
        except FramingError as error:
            why = str(error)
        if self._peer is peer:
            self._peer = None
            self._agreed = False
            logger.error("xen-notify: Xen's toolstack is gone, no checkpoint can be made: %s", why)
            await self._fail(f"Xen's toolstack is gone: {why}")
        await peer.aclose()

    async def _listen_to(self, peer: trio.SocketStream) -> None:
        decoder = StreamDecoder(False)
        while data := await peer.receive_some(_READ):
            for message in decoder.feed(bytes(data)):
                if self._peer is not peer:
                    return
                await self._take(message, peer)

    async def _take(self, message: bytes, peer: trio.SocketStream) -> None:
        if message == INIT:
            self._agreed = True
            await self._say(INIT_ANSWER, peer)
        elif message == MADE:
            await self._commit()
        else:
            logger.warning("xen-notify: a message that means nothing is ignored: %r", message[:_SHOWN])

    async def _say(self, message: bytes, peer: trio.SocketStream) -> None:
        async with self._saying:
            await peer.send_all(len(message).to_bytes(4, "big") + message)

    async def _commit(self) -> None:
        assert self._handlers is not None
        # Whose it is, now: while the proxy handles it, that request may be cancelled and another one come.
        epoch, self._asked, over = self._asked, None, self._over
        if epoch is None:
            epoch = self._own_epoch = await self._handlers.begun()
        self._committed += 1
        await self._handlers.committed(epoch, Figures())
        over.set()

    async def _fail(self, detail: str) -> None:
        epoch, self._asked, over = self._asked, None, self._over
        if epoch is not None and self._handlers is not None:
            # It may have gone between the load and the word about it.
            await self._handlers.failed(epoch, detail, secondary_intact=False)
            over.set()

    @property
    def ready(self) -> bool:
        """Whether Xen's toolstack is there."""
        return self._agreed

    def figures(self) -> Mapping[str, int | float | str | bool]:
        """Give whether there is a peer, and how much was said."""
        return {"connected": self._agreed, "requests": self._requests, "committed": self._committed}

    # What the proxy asks for

    async def request(self, request: CheckpointRequest) -> None:
        """Ask for a checkpoint and wait for it. Raises CheckpointerError when nobody is there to make one."""
        peer = self._peer
        if peer is None or not self._agreed:
            raise CheckpointerError("checkpointer xen-notify: Xen's toolstack is not connected")
        if request.epoch <= self._own_epoch:
            return  # Xen has made it by itself, between this request and its arrival here
        self._asked = request.epoch
        self._over = over = trio.Event()
        self._requests += 1
        try:
            # Who reads finds out, and tells, that the peer is gone.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._say(ASK, peer)
            await over.wait()
        finally:
            # Cancelled: Xen makes it all the same, which is then one that it began by itself.
            if self._asked == request.epoch:
                self._asked = None

    async def promote(self, side: int) -> None:
        """Raise PromotionFailed: which guest runs is for Xen's toolstack to decide."""
        await trio.lowlevel.checkpoint()
        raise PromotionFailed(
            f"checkpointer xen-notify cannot promote the {SIDE_NAMES[side]}: Xen's toolstack does that"
        )

    async def abandon(self, side: int) -> None:
        """Do nothing: Xen's toolstack takes care of its guests."""
        await trio.lowlevel.checkpoint()
