"""The filters that keep a secondary from its own interface, and what becomes of them when it takes over.

A filter-redirector gives the proxy what the secondary says. Once it is deleted the guest speaks for itself.
What it had said before only the proxy has, and the way from there to the client was the old primary's. So
another redirector takes the same chardev over, in the other direction: what the proxy sends there goes out.
Without it the client would wait for the guest to repeat it, after a time-out of 200 ms and more.

QEMU 7.2: net/filter-mirror.c, net/filter.c.
"""

import logging
from collections.abc import Sequence
from typing import Any, Final

from colo_compare.checkpoint.qemu_guest import QemuGuest
from colo_compare.errors import MonitorRefused

logger: Final = logging.getLogger(__name__)

WAY_OUT: Final = "colo-compare-out"  # the name of the redirector that lets out
_REDIRECTOR: Final = "filter-redirector"


async def drop_filters(guest: QemuGuest, names: Sequence[str]) -> bool:
    """Delete the filters of a secondary that takes over; say whether what is sent to its port goes out now.

    Raises MonitorError for a filter that cannot be deleted.
    """
    ways_out = [way_out for name in names if (way_out := await _way_out(guest, name))]
    for name in names:
        await guest.delete_object(name)
    if len(ways_out) != 1:
        return False
    try:
        await guest.add_object(_REDIRECTOR, WAY_OUT, ways_out[0])
    except MonitorRefused as error:
        logger.warning("what the secondary had said has to be repeated by it: %s", error)
        return False
    return True


async def _way_out(guest: QemuGuest, name: str) -> dict[str, Any]:
    """Give the properties of a filter's reverse; none for one that does not send what the guest says."""
    try:
        found = {
            key: await guest.property_of(name, key) for key in ("type", "queue", "netdev", "vnet_hdr_support")
        }
        outdev = await guest.property_of(name, "outdev")
    except MonitorRefused:
        return {}
    if found["type"] != _REDIRECTOR or found["queue"] == "tx" or not outdev:
        return {}
    # At the head of the filters, which is the last one before the network: a rewriter has seen it already.
    return {
        "netdev": found["netdev"],
        "queue": "rx",
        "indev": outdev,
        "position": "head",
        "vnet_hdr_support": found["vnet_hdr_support"],
    }
