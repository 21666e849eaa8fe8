"""The filters between a guest and its interface, when it takes over, and when it gets a new secondary.

A secondary is kept from its interface by filters. A filter-redirector gives the proxy what it says; once that
is deleted the guest speaks for itself. What it had said before only the proxy has, and the way from there to
the client was the old primary's. So another redirector takes the same chardev over, in the other direction:
what the proxy sends there goes out. Without it the client would wait for the guest to repeat it, after a
time-out of 200 ms and more.

A new secondary needs a primary behind filters. They are added when everything else is done, as late as can
be, and the one that takes the guest's words from it comes last, when the proxy can let them out again::

    network  ---> rewriter ---------------------------> mirror ---> guest     what it hears
    network <---- rewriter <---- released     said <--------------- guest     what it says

The rewriter is the guest's own, from its life as a secondary: open connections need it. It stays next to the
network, so that the proxy and the new secondary know the guest's own sequence numbers only, which the two
share. (QEMU's docs/COLO-FT.txt puts it next to the guest. Then the new secondary would hear and say other
numbers than the primary on such a connection, and every word would cost a checkpoint.)

QEMU 7.2: net/filter-mirror.c, net/filter-rewriter.c, net/filter.c. What goes to the guest passes the filters
of its interface from head to tail, what comes from it from tail to head.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec
import trio

from colo_compare.checkpoint.qemu_guest import QemuGuest, unless_refused
from colo_compare.checkpoint.qemu_options import LISTENERS, QemuOptions, listener_at
from colo_compare.errors import CheckpointerError, ConfigError, MonitorError, MonitorRefused

logger: Final = logging.getLogger(__name__)

WAY_OUT: Final = "colo-compare-out"  # the name of the redirector that lets out
# Names of the primary's filters, and of the character devices of the first two.
MIRROR: Final = "colo-compare-mirror"
RELEASED: Final = "colo-compare-released"
SAID: Final = "colo-compare-said"
_REDIRECTOR: Final = "filter-redirector"

PEER_LIMIT: Final = 10.0  # seconds: the new secondary's QEMU runs, and tries each second or so
_LOOK_AGAIN: Final = 0.02  # seconds


class Speech(msgspec.Struct, frozen=True):
    """A redirector that gave the proxy what a secondary says."""

    netdev: str
    outdev: str  # the character device
    headers: bool  # vnet_hdr_support


class Filters:
    """The filters that a guest lost when it took over, and those that it gets for a new secondary."""

    def __init__(self) -> None:
        self._dropped = False
        self._speech: Speech | None = None  # which the way out has taken over
        self._idle: list[str] = []  # character devices that led to the dead primary

    async def drop(self, guest: QemuGuest, names: Sequence[str]) -> bool:
        """Delete the filters of a secondary that takes over; raises MonitorError where that is refused.

        Says whether what is sent to its port goes out now.
        """
        found = [speech for name in names if (speech := await self._look_at(guest, name))]
        for name in names:
            await guest.delete_object(name)
            self._dropped = True
        if len(found) != 1:
            return False
        (speech,) = found
        # At the head, which is the last one before the network: a rewriter has seen it already.
        try:
            await _add(guest, _REDIRECTOR, WAY_OUT, speech, queue="rx", indev=speech.outdev, position="head")
        except MonitorRefused as error:
            logger.warning("what the secondary had said has to be repeated by it: %s", error)
            return False
        self._speech = speech
        return True

    async def _look_at(self, guest: QemuGuest, name: str) -> Speech | None:
        """Give what is known of a filter that sends what the guest says, None for another one."""
        try:
            if await guest.property_of(name, "type") != _REDIRECTOR:
                return None
            if indev := await guest.property_of(name, "indev"):
                self._idle.append(indev)
            outdev = await guest.property_of(name, "outdev")
            if await guest.property_of(name, "queue") == "tx" or not outdev:
                return None
            netdev = await guest.property_of(name, "netdev")
            return Speech(netdev, outdev, await guest.property_of(name, "vnet_hdr_support"))
        except MonitorRefused:
            return None

    # A primary's

    def check(self, options: QemuOptions) -> None:
        """Raise ConfigError or CheckpointerError if the guest needs filters, and cannot get them."""
        if not self._dropped:
            return
        if self._speech is None:
            raise CheckpointerError(
                f"{options.primary} took over and lost its filters, of which too little is known: add a "
                "primary's by hand, and start the proxy again"
            )
        for key in LISTENERS:
            if not getattr(options, key):
                raise ConfigError(
                    f"$.checkpointer.{key}", "is missing: where shall the guest that took over listen?"
                )

    @asynccontextmanager
    async def restoring(self, guest: QemuGuest, options: QemuOptions) -> AsyncIterator[None]:
        """Let a guest that lost its filters listen, for `restore` in the block; undo both if that raises.

        Raises MonitorError.
        """
        if self._speech is None:
            yield
            return
        try:
            for name in self._idle:
                # One that is on the new primary's old address would connect to its own QEMU.
                await unless_refused(guest.remove_device(name))
            self._idle.clear()
            for name, key in zip((MIRROR, RELEASED), LISTENERS, strict=True):
                await guest.listen(name, listener_at(key, getattr(options, key)))
            yield
        except BaseException:
            with trio.CancelScope(shield=True), suppress(MonitorError):
                await _take_away(guest)
            raise

    async def restore(self, guest: QemuGuest, connect_client: Callable[[], Awaitable[None]]) -> None:
        """Give a guest that lost its filters those of a primary: what it says goes through the proxy again.

        Raises CheckpointerError, and what `connect_client` raises.
        """
        speech = self._speech
        if speech is None:
            return
        await _wait_for_peer(guest, MIRROR, "the new secondary's mirror must lead there")
        await connect_client()
        await _wait_for_peer(guest, RELEASED, "the client's port must")
        await _add(guest, _REDIRECTOR, RELEASED, speech, queue="rx", indev=RELEASED)
        await _add(guest, "filter-mirror", MIRROR, speech, queue="tx", outdev=MIRROR)
        await unless_refused(guest.delete_object(WAY_OUT))
        await _add(guest, _REDIRECTOR, SAID, speech, queue="rx", outdev=speech.outdev)
        logger.info("%s: what it says goes through the proxy again", guest.address)


async def _add(guest: QemuGuest, kind: str, name: str, speech: Speech, **properties: str) -> None:
    """Add a filter to the interface: at the tail, next to the guest, unless `position` says other."""
    place = {"netdev": speech.netdev, "vnet_hdr_support": speech.headers, "position": "tail"}
    await guest.add_object(kind, name, place | properties)


async def _wait_for_peer(guest: QemuGuest, name: str, hint: str) -> None:
    with trio.move_on_after(PEER_LIMIT):
        while True:
            if await guest.is_connected(name):
                return
            await trio.sleep(_LOOK_AGAIN)
    raise CheckpointerError(
        f"{guest.address}: nobody has connected to its {name} within {PEER_LIMIT:g} s: {hint}"
    )


async def _take_away(guest: QemuGuest) -> None:
    """Let the guest speak for itself again, first of all."""
    for name in (SAID, MIRROR, RELEASED):
        await unless_refused(guest.delete_object(name))
    for name in (MIRROR, RELEASED):
        await unless_refused(guest.remove_device(name))
