"""TCP flows by key.

A dictionary alone would do. Among many flows it costs a frame 150 ns, compiled: a bytes object for its key,
the hash of that, and a look at three places that are in no cache, the dictionary's slot, its entry, and the
other key. A plain flow (see `wire.flow_key`) is found by two numbers in two places, of which one is the flow
itself, and needs no key.
"""

from typing import Final

from mypy_extensions import i64

from colo_compare.core.tcp_flow import TcpFlow
from colo_compare.wire.flow_key import PLAIN_KEY_LEN, plain_addresses, plain_ports
from colo_compare.wire.frame import Frame

_SMALLEST: Final = 64  # slots, a power of two


class FlowIndex:
    """A hash table of plain flows, chained through `TcpFlow.following`, and a dictionary of the others.

    Clients choose addresses and ports: who knew the numbers that these are multiplied by could put thousands
    of flows into one slot. Hence they follow from a seed, which should be nobody's guess.
    """

    def __init__(self, seed: int = 0) -> None:
        # Odd, of 31 bits: no product with 32 bits exceeds 63.
        self._upper: i64 = 0x5BD1E995 ^ (seed << 1 & 0x3FFFFFFE)
        self._lower: i64 = 0x5B873593 ^ (seed >> 28 & 0x3FFFFFFE)
        self._ports: i64 = 0x7FEB352D ^ (seed >> 57 & 0x3FFFFFFE)
        self._slots: list[TcpFlow | None] = [None] * _SMALLEST
        self._plain: i64 = 0
        self._others: dict[bytes, TcpFlow] = {}

    def __len__(self) -> int:
        return self._plain + len(self._others)

    def of(self, frame: Frame) -> "TcpFlow | None":
        """Give the flow of a frame."""
        if frame.ports < 0:
            return self._others.get(frame.long_key)
        return self._find(frame.addresses, frame.ports)

    def get(self, key: bytes) -> "TcpFlow | None":
        """Give the flow of a key."""
        if len(key) != PLAIN_KEY_LEN:
            return self._others.get(key)
        return self._find(plain_addresses(key), plain_ports(key))

    def has(self, flow: TcpFlow) -> bool:
        """Whether this very flow is here, and not another of its key, or none."""
        if flow.ports < 0:
            return self._others.get(flow.key) is flow
        return self._find(flow.addresses, flow.ports) is flow

    def put(self, flow: TcpFlow) -> "TcpFlow | None":
        """Take a flow, in place of one that has the same key; gives that one."""
        if flow.ports < 0:
            old = self._others.get(flow.key)
            self._others[flow.key] = flow
            return old
        old = self._find(flow.addresses, flow.ports)
        if old is not None:
            self.remove(old)
        if self._plain >= len(self._slots):
            self._grow()
        self._plain += 1
        self._chain(flow)
        return old

    def remove(self, flow: TcpFlow) -> None:
        """Forget a flow that is here."""
        if flow.ports < 0:
            del self._others[flow.key]
            return
        self._plain -= 1
        slot = self._slot(flow.addresses, flow.ports, len(self._slots))
        before = self._slots[slot]
        if before is flow:
            self._slots[slot] = flow.following
        else:
            while before is not None and before.following is not flow:
                before = before.following
            assert before is not None  # the flow is here
            before.following = flow.following
        flow.following = None

    def values(self) -> list[TcpFlow]:
        """Give all flows, in an order that follows from their keys and from how they came."""
        found = list(self._others.values())
        for first in self._slots:
            flow = first
            while flow is not None:
                found.append(flow)
                flow = flow.following
        return found

    def _find(self, addresses: i64, ports: i64) -> "TcpFlow | None":
        flow = self._slots[self._slot(addresses, ports, len(self._slots))]
        while flow is not None and (flow.addresses != addresses or flow.ports != ports):
            flow = flow.following
        return flow

    def _chain(self, flow: TcpFlow) -> None:
        slot = self._slot(flow.addresses, flow.ports, len(self._slots))
        flow.following = self._slots[slot]
        self._slots[slot] = flow

    def _grow(self) -> None:
        """Double the slots, so that a chain is one or two flows long: a dictionary does so, too."""
        firsts = self._slots
        self._slots = [None] * (2 * len(firsts))
        for first in firsts:
            flow = first
            while flow is not None:
                following = flow.following
                self._chain(flow)
                flow = following

    def _slot(self, addresses: i64, ports: i64, slots: i64) -> i64:
        """Give the slot of a flow, of a power of two of them.

        Ports and addresses that are counted upwards spread as evenly as random ones.
        """
        mixed = (
            (((addresses >> 32) & 0xFFFFFFFF) * self._upper)
            ^ ((addresses & 0xFFFFFFFF) * self._lower)
            ^ (ports * self._ports)
        )
        return ((mixed ^ (mixed >> 29)) >> 13) & (slots - 1)
