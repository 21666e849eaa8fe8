"""Who has which address on the link: what the guest claims for itself, and what the client's side does.

The guest's claims are announced when it runs elsewhere. Only ARP and neighbour discovery count: the source
addresses of its packets may be those of others for which it routes, and to announce these would take their
traffic.

The client side's claims answer the secondary. What it asks goes nowhere (rule 4), as an answer to it alone
would go to both guests; but the two kernels probe their neighbours at moments of their own, and one that gets
no answer falls silent.
"""

from typing import Final

from colo_compare.wire.announce import gratuitous_arp, unsolicited_advertisement
from colo_compare.wire.frame import Frame
from colo_compare.wire.neighbour import Claim, answer, claim, question

_MAX_ADDRESSES: Final = 256  # of one guest
_MAX_NEIGHBOURS: Final = 4096  # on the client's side


class Neighbours:
    """Addresses of the primary and of the client's side."""

    def __init__(self) -> None:
        self._claims: dict[Claim, None] = {}
        self._known: dict[tuple[bytes, tuple[int, ...]], bytes] = {}  # address and VLANs -> MAC, oldest first

    def learn_guest(self, frame: Frame) -> None:
        """Take an opaque frame of the primary."""
        if len(self._claims) < _MAX_ADDRESSES:
            claimed = claim(frame)
            if claimed is not None:
                self._claims[claimed] = None

    def learn_client(self, frame: Frame) -> None:
        """Take an opaque frame of the client's side."""
        claimed = claim(frame)
        if claimed is not None:
            self._know(claimed.address, claimed.vlans, claimed.mac)

    def _know(self, address: bytes, vlans: tuple[int, ...], mac: bytes) -> None:
        key = (address, vlans)
        self._known.pop(key, None)
        if len(self._known) >= _MAX_NEIGHBOURS:
            del self._known[next(iter(self._known))]
        self._known[key] = mac

    def answer(self, frame: Frame) -> "Frame | None":
        """Give the answer to an opaque frame of the secondary, None where there is none to give."""
        asked = question(frame)
        if asked is None:
            return None
        mac = self._known.get((asked.target, asked.vlans))
        return None if mac is None else answer(frame, asked, mac)

    def announcements(self) -> list[Frame]:
        """Give a frame for each address of the guest that tells the network where it is now."""
        frames: list[Frame] = []
        for mac, address, vlans in self._claims:
            if len(address) == 4:
                frames.append(gratuitous_arp(mac, address, vlans))
            else:
                frames.append(unsolicited_advertisement(mac, address, vlans))
        return frames
