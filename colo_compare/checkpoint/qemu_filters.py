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
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, Self

import msgspec
import trio

from colo_compare.checkpoint.contract import Connect
from colo_compare.checkpoint.qemu_guest import QemuGuest, unless_refused
from colo_compare.checkpoint.qemu_options import LISTENERS, QemuOptions, listener_at
from colo_compare.errors import CheckpointerError, MonitorError, MonitorRefused

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

    def __init__(self, speech: Speech | None = None) -> None:
        """`speech`: what the guest's way out has taken over, if it has one."""
        self._dropped = speech is not None
        self._speech = speech

    @classmethod
    async def of(cls, guest: QemuGuest) -> Self:
        """Give those of a guest that may have taken over before this process began. Raises MonitorError."""
        try:
            outdev = await guest.property_of(WAY_OUT, "indev")
            return cls(await _speech(guest, WAY_OUT, outdev))
        except MonitorRefused:
            return cls()

    async def drop(self, guest: QemuGuest, names: Sequence[str]) -> bool:
        """Delete the filters of a secondary that takes over; raises MonitorError where that is refused.

        Says whether what is sent to its port goes out now.
        """
        found: list[Speech] = []
        idle: list[str] = []  # character devices that lead to the dead primary
        for name in names:
            with suppress(MonitorRefused):
                await _look_at(guest, name, found, idle)
        for name in names:
            await guest.delete_object(name)
            self._dropped = True
        if len(found) == 1:
            try:
                await _let_out(guest, found[0])
                self._speech = found[0]
            except MonitorRefused as error:
                logger.warning("what the secondary had said has to be repeated by it: %s", error)
        for name in idle:
            # Where the guest will listen in the dead one's place, it would connect to its own QEMU.
            await unless_refused(guest.remove_device(name))
        return self._speech is not None

    # A primary's

    async def check(self, options: QemuOptions, other: QemuGuest) -> None:
        """Raise CheckpointerError if the guest needs filters, and cannot get them, or its secondary has none.

        Changes nothing.
        """
        for name in options.secondary_filters:
            try:
                await other.property_of(name, "type")
            except MonitorRefused:
                raise CheckpointerError(
                    f"{other.address}: there is no object {name} ($.checkpointer.secondary_filters): nothing "
                    "would keep that guest from its network; start it with the filters of a secondary"
                ) from None
        if not self._dropped:
            return
        if self._speech is None:
            raise CheckpointerError(
                f"{options.primary} took over and lost its filters, of which too little is known: add a "
                "primary's by hand, and start the proxy again"
            )
        for key in LISTENERS:
            if not getattr(options, key):
                raise CheckpointerError(
                    f"$.checkpointer.{key} is missing: where shall the guest that took over "
                    f"({options.primary}) listen?"
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
            for name, key in zip((MIRROR, RELEASED), LISTENERS, strict=True):
                await guest.listen(name, listener_at(key, getattr(options, key)))
            yield
        except BaseException:
            with trio.CancelScope(shield=True), suppress(MonitorError):
                await _take_away(guest, self._speech)
            raise

    async def restore(self, guest: QemuGuest, other: QemuGuest, connect_client: Connect) -> None:
        """Give a guest that lost its filters those of a primary: what it says goes through the proxy again.

        `other`: its new secondary. Raises CheckpointerError, and what `connect_client` raises.
        """
        speech = self._speech
        if speech is None:
            return
        await _wait_for_peer(guest, MIRROR, other, "the new secondary's mirror must lead there")
        await connect_client()
        await _wait_for_peer(guest, RELEASED, other, "the client's port must")
        await _add(guest, _REDIRECTOR, RELEASED, speech, queue="rx", indev=RELEASED)
        await _add(guest, "filter-mirror", MIRROR, speech, queue="tx", outdev=MIRROR)
        await unless_refused(guest.delete_object(WAY_OUT))
        await _add(guest, _REDIRECTOR, SAID, speech, queue="rx", outdev=speech.outdev)
        logger.info("%s: what it says goes through the proxy again", guest.address)


async def _look_at(guest: QemuGuest, name: str, found: list[Speech], idle: list[str]) -> None:
    """Note what a filter of a secondary sends, or where it hears. Raises MonitorError."""
    if await guest.property_of(name, "type") != _REDIRECTOR:
        return
    if indev := await guest.property_of(name, "indev"):
        idle.append(indev)
    outdev = await guest.property_of(name, "outdev")
    if outdev and await guest.property_of(name, "queue") != "tx":
        found.append(await _speech(guest, name, outdev))


async def _speech(guest: QemuGuest, name: str, outdev: str) -> Speech:
    netdev = await guest.property_of(name, "netdev")
    return Speech(netdev, outdev, await guest.property_of(name, "vnet_hdr_support"))


async def _let_out(guest: QemuGuest, speech: Speech) -> None:
    """Let out what is sent to where the proxy heard the guest. Raises MonitorError."""
    # At the head, which is the last one before the network: a rewriter has seen it already.
    await _add(guest, _REDIRECTOR, WAY_OUT, speech, queue="rx", indev=speech.outdev, position="head")


async def _add(guest: QemuGuest, kind: str, name: str, speech: Speech, **properties: str) -> None:
    """Add a filter to the interface: at the tail, next to the guest, unless `position` says other."""
    place = {"netdev": speech.netdev, "vnet_hdr_support": speech.headers, "position": "tail"}
    await guest.add_object(kind, name, place | properties)


async def _wait_for_peer(guest: QemuGuest, name: str, other: QemuGuest, hint: str) -> None:
    """Wait until somebody is at a character device, as long as the other guest lives."""
    with trio.move_on_after(PEER_LIMIT):
        while True:
            if await guest.is_connected(name):
                return
            await other.status()
            await trio.sleep(_LOOK_AGAIN)
    raise CheckpointerError(
        f"{guest.address}: nobody has connected to its {name} within {PEER_LIMIT:g} s: {hint}"
    )


async def _take_away(guest: QemuGuest, speech: Speech) -> None:
    """Let the guest speak for itself again, first of all."""
    for name in (SAID, MIRROR, RELEASED):
        await unless_refused(guest.delete_object(name))
    for name in (MIRROR, RELEASED):
        await unless_refused(guest.remove_device(name))
    await unless_refused(_let_out(guest, speech))
