"""Which addresses the guest claims for itself, to announce them when it runs elsewhere.

Only what it has said in ARP or neighbour discovery counts: the source addresses of its packets may be those
of others for which it routes, and to announce these would take their traffic.
"""

from colo_compare.wire.announce import gratuitous_arp, unsolicited_advertisement
from colo_compare.wire.ethernet import network_start
from colo_compare.wire.frame import ARP, NDP, Frame

_MAX_ADDRESSES = 256  # of one guest


class Neighbours:
    """Addresses that the primary has claimed."""

    def __init__(self) -> None:
        self._claims: dict[tuple[bytes, bytes, tuple[int, ...]], None] = {}  # MAC, address, VLANs

    def learn(self, frame: Frame) -> None:
        """Take an opaque frame of the primary (ARP: RFC 826; neighbour discovery: RFC 4861, 4.3 and 4.4)."""
        if len(self._claims) >= _MAX_ADDRESSES:
            return
        data = frame.data
        at = network_start(data, frame.header_len)
        if at == 0:
            return
        address = b""
        if frame.reason == ARP and len(data) >= at + 28 and data[at + 4 : at + 6] == b"\x06\x04":
            address = data[at + 14 : at + 18]
        elif frame.reason == NDP and len(data) >= at + 64 and data[at + 6] == 58:
            if data[at + 40] == 136:
                address = data[at + 48 : at + 64]
            elif data[at + 40] == 135:
                address = data[at + 8 : at + 24]
        if address and any(address):
            mac = data[frame.header_len + 6 : frame.header_len + 12]
            self._claims[(mac, address, _vlans(frame, at))] = None

    def announcements(self) -> list[Frame]:
        """Give a frame for each address that tells the network where it is now."""
        frames: list[Frame] = []
        for mac, address, vlans in self._claims:
            if len(address) == 4:
                frames.append(gratuitous_arp(mac, address, vlans))
            else:
                frames.append(unsolicited_advertisement(mac, address, vlans))
        return frames


def _vlans(frame: Frame, network: int) -> tuple[int, ...]:
    tags: list[int] = []
    for at in range(frame.header_len + 14, network, 4):
        tags.append(int.from_bytes(frame.data[at : at + 2], "big") & 0x0FFF)
    return tuple(tags)
