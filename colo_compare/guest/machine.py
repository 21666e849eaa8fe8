"""The guest as one object: frames and times in, frames out. No clock and no I/O."""

from collections.abc import Iterable

from colo_compare.guest import (
    applications,
    caller,
    datagrams,
    icmp,
    neighbour_input,
    neighbours,
    solicit,
    tcp_input,
    tcp_open,
    tcp_output,
    tcp_timers,
)
from colo_compare.guest.boot import FIRST_PORT, mapped
from colo_compare.guest.header import NEVER, Header, open_memory
from colo_compare.guest.noise import Noise
from colo_compare.guest.turn import Turn
from colo_compare.wire import frame as frames
from colo_compare.wire.checksum import internet_checksum, transport_checksum_ok
from colo_compare.wire.ethernet import ETHERNET_LEN
from colo_compare.wire.frame import Frame, parse_frame


class Machine:
    """A guest in a memory in which one was booted. It keeps nothing but views of that memory, and its noise.

    The memory may be replaced under it between two calls, by another guest's of the same geometry. Times are
    seconds of the guest's clock; a time that lies before the latest one counts as that one.
    """

    def __init__(self, raw: memoryview, noise: Noise | None = None) -> None:
        """Attach to a memory (writable, format "B"). Raises ValueError if no guest is in it."""
        self.raw = raw
        self._memory, self._header, self._geometry = open_memory(raw)
        self.noise = noise or Noise()

    @property
    def header(self) -> Header:
        """The header of the memory: addresses, clock, counters."""
        return self._header

    def receive(self, batch: Iterable[bytes], now: float) -> list[bytes]:
        """Take frames (without virtio-net headers, checksums complete) and give those to send."""
        turn = self._begin(now)
        for data in batch:
            self._take(turn, data)
        return self._end(turn)

    def handle_timer(self, now: float) -> list[bytes]:
        """Do what is due, and give the frames to send."""
        turn = self._begin(now)
        header = self._header
        if turn.now >= header.next_due:
            header.next_due = NEVER
            neighbours.handle_timer(turn)
            tcp_timers.handle(turn)
        return self._end(turn)

    def next_timer(self) -> float:
        """Give when `handle_timer` must be called, by the guest's clock; infinity for never.

        It may be early: a timer that was put off is found out when it would have been due.
        """
        due = self._header.next_due
        return float("inf") if due == NEVER else due / 1e6

    def announce(self, now: float) -> list[bytes]:
        """Give the frames that tell the network where the guest's addresses are (RFC 5227, RFC 4861)."""
        turn = self._begin(now)
        turn.out += solicit.announcements(self._header)
        return self._end(turn)

    def call(self, address: str, port: int, size: int, now: float, source_port: int = 0) -> list[bytes]:
        """Connect to a server, send `size` bytes of the content and take the answer: see `caller`.

        `source_port` 0 takes the next free one. Raises ValueError if there is no room for it.
        """
        turn = self._begin(now)
        header = self._header
        if not source_port:
            source_port = header.next_port
            header.next_port = source_port + 1 if source_port < 65535 else FIRST_PORT
        made = tcp_open.connect(turn, mapped(address), port, source_port, applications.CALLER)
        if made is None:
            raise ValueError(f"the guest cannot call {address}: port {source_port} is in use, or no room")
        made.left = size
        header.calls += 1
        header.call_state = caller.CALLING
        header.call_answer = header.call_digest = 0
        return self._end(turn)

    def _begin(self, now: float) -> Turn:
        header = self._header
        noise = self.noise
        # Rounded, so that the microsecond that next_timer gave comes back as itself.
        clock = max(round(now * 1e6) + noise.jitter(), header.clock)
        header.clock = clock
        return Turn(self._memory, header, self._geometry, noise, clock)

    def _end(self, turn: Turn) -> list[bytes]:
        """Let the applications do what they can, and send what came of it."""
        for connection in turn.touched.values():
            applications.run(turn, connection)
            tcp_output.flush(turn, connection)
        self._header.frames_out += len(turn.out)
        return turn.out

    def _take(self, turn: Turn, data: bytes) -> None:
        header = self._header
        header.frames_in += 1
        frame = parse_frame(data, 0, True)
        if data[:6] != header.mac and not _is_group(header, data):
            header.foreign += 1
        elif frame.kind == frames.OPAQUE:
            if frame.reason == frames.ARP:
                neighbour_input.receive_arp(turn, frame)
            elif frame.reason == frames.NDP:
                neighbour_input.receive_discovery(turn, frame)
            elif frame.reason >= frames.RUNT:
                header.damaged += 1
            else:
                header.foreign += 1
        elif frame.l3 != ETHERNET_LEN:  # a VLAN tag
            header.foreign += 1
        elif not _is_intact(frame):
            header.damaged += 1
        elif frame.kind == frames.TCP:
            tcp_input.receive(turn, frame)
        elif frame.kind == frames.UDP:
            datagrams.receive(turn, frame)
        elif frame.kind == frames.ICMP:
            icmp.receive(turn, frame)
        else:
            header.foreign += 1


def _is_group(header: Header, data: bytes) -> bool:
    """Say whether a frame goes to all, or to a group that the guest is in."""
    target = data[:6]
    if target in (b"\xff\xff\xff\xff\xff\xff", b"\x33\x33\x00\x00\x00\x01"):
        return True
    return target[:3] == b"\x33\x33\xff" and target[3:] in (header.address6[13:], header.link_local[13:])


def _is_intact(frame: Frame) -> bool:
    """Say whether a frame's checksums are right (RFC 1122, 3.2.1.2: a wrong one is dropped in silence)."""
    if frame.version == 4:
        header_end = frame.l3 + (frame.data[frame.l3] & 0x0F) * 4
        if internet_checksum(frame.data, frame.l3, header_end) != 0:
            return False
    return transport_checksum_ok(frame)
