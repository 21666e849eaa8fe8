"""The output-commit rule as an oracle of its own: may this frame reach the client now?

It knows what each guest said (from the packets as they were made, before any rewriting) and what a
committed checkpoint covers. It shares no code and no idea with `colo_compare.core`: TCP is a map from places
to bytes, datagrams are counted.
"""

from collections import Counter

from tests.conversation import Conversation, Packet
from tests.frames import RST


def _datagrams(packet: Packet) -> list[bytes]:
    """What a frame carries: one datagram, a part of one, or several."""
    if packet.kind == "fragment":
        return [packet.whole]
    if not packet.segment:
        return [packet.payload]
    size = packet.segment
    return [packet.payload[start : start + size] for start in range(0, len(packet.payload), size)]


class Said:
    """What one guest said in one conversation, as far as the proxy heard it."""

    def __init__(self) -> None:
        self.places: dict[int, int] = {}
        self.contradicted: set[int] = set()  # places where it said two different things
        self.reset = False
        self.ack = -1
        self.edge = -1
        self.floor = 0  # a copied state has sent all places below, whoever saw them
        self.datagrams: Counter[bytes] = Counter()
        self.fragments: dict[bytes, set[int]] = {}  # offsets of the fragments of a datagram so far

    def add(self, packet: Packet) -> None:
        if packet.kind == "fragment":
            pieces = self.fragments.setdefault(packet.whole, set())
            pieces.add(packet.at)
            if len(pieces) == packet.pieces:
                self.datagrams[packet.whole] += 1
            return
        if packet.kind != "tcp":
            self.datagrams.update(_datagrams(packet))
            return
        for place, value in packet.places():
            if self.places.setdefault(place, value) != value:
                self.contradicted.add(place)
        self.reset = self.reset or bool(packet.flags & RST)
        if packet.ack is not None:
            self.ack = max(self.ack, packet.ack)
            self.edge = max(self.edge, packet.edge)

    def copy(self) -> "Said":
        other = Said()
        other.places = dict(self.places)
        other.contradicted = set(self.contradicted)
        other.reset, other.ack, other.edge, other.floor = self.reset, self.ack, self.edge, self.floor
        other.datagrams = Counter(self.datagrams)
        other.fragments = {whole: set(offsets) for whole, offsets in self.fragments.items()}
        return other


class Ledger:
    """Follows both guests over all conversations."""

    def __init__(self) -> None:
        self._primary: dict[Conversation, Said] = {}
        self._secondary: dict[Conversation, Said] = {}
        self._marked: set[int] = set()  # tags of primary packets that the checkpoint under way covers
        self._unmarked: set[int] = set()  # received since the last mark
        self._covered: set[int] = set()
        self._primary_at_pause: dict[Conversation, Said] = {}
        self._shown: dict[Conversation, int] = {}  # the client has all places below

    def primary_said(self, packet: Packet) -> None:
        self._primary.setdefault(packet.maker.conversation, Said()).add(packet)
        self._unmarked.add(packet.tag)

    def secondary_said(self, packet: Packet) -> None:
        self._secondary.setdefault(packet.maker.conversation, Said()).add(packet)

    def paused(self, sent: dict[Conversation, int]) -> None:
        """The primary stands still, and has sent all places below `sent`."""
        for talk, floor in sent.items():
            self._primary.setdefault(talk, Said()).floor = floor
        self._marked = self._unmarked
        self._unmarked = set()
        self._primary_at_pause = {talk: said.copy() for talk, said in self._primary.items()}

    def loaded(self) -> None:
        """The secondary now is what the primary was at the pause: so is all that it said before."""
        self._secondary = {talk: said.copy() for talk, said in self._primary_at_pause.items()}

    def committed(self) -> None:
        self._covered |= self._marked
        self._marked = set()

    def aborted(self) -> None:
        self._unmarked |= self._marked
        self._marked = set()

    def promoted(self) -> None:
        """The secondary is the primary now."""
        self._primary = self._secondary
        self._secondary = {}
        self._unmarked, self._marked = set(), set()

    def released(self, packet: Packet) -> None:
        """The client has it: what is below may be repeated with any contents (a keep-alive probe does)."""
        talk = packet.maker.conversation
        if packet.kind == "tcp" and packet.at <= self._shown.get(talk, 0):
            self._shown[talk] = max(self._shown.get(talk, 0), packet.end)

    def shown(self, talk: Conversation) -> int:
        """Give the place up to which the client has everything."""
        return self._shown.get(talk, 0)

    def objection(self, packet: Packet, edge: int | None) -> str:
        """Say why this primary packet must not reach the client now; empty where it may.

        `edge` is where the window ends that the client is shown (relative), None without an ACK.
        """
        if packet.tag in self._covered or packet.kind == "opaque":
            return ""
        said = self._secondary.get(packet.maker.conversation)
        if said is None:
            return "the secondary never spoke in this flow"
        if packet.kind != "tcp":
            if all(said.datagrams[contents] for contents in _datagrams(packet)):
                return ""
            return "the secondary never sent this datagram"
        shown = self.shown(packet.maker.conversation)
        for place, value in packet.places():
            if place not in said.places and place < said.floor:
                continue  # sent before the copy was taken, and not seen by the proxy
            if said.places.get(place) != value and place >= shown:
                return f"at {place} the secondary said {said.places.get(place)}, not {value}"
        if packet.flags & RST and not said.reset:
            return "the secondary did not reset"
        if packet.ack is None or packet.flags & RST:
            return ""
        return self.objection_to_offer(packet.maker.conversation, packet.ack, edge)

    def objection_to_offer(self, talk: Conversation, ack: int, edge: int | None) -> str:
        """The same for an acknowledgement and the window behind it alone."""
        said = self._secondary.get(talk, Said())
        if ack > said.ack:
            return f"acknowledges {ack}, the secondary {said.ack}"
        if edge is not None and edge > said.edge:
            return f"offers a window up to {edge}, the secondary {said.edge}"
        return ""
