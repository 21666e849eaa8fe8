"""What must be true at every moment of a run: the output-commit rule, and the account of every frame."""

from typing import TYPE_CHECKING, Final

from colo_compare.core.actions import Event
from colo_compare.core.settings import PROTECT
from colo_compare.core.sides import PRIMARY
from colo_compare.simulate.packets import ACK, FIN, ICMP6, RST, SYN, TCP, UDP, Seen, look
from colo_compare.simulate.service import REQUEST
from colo_compare.simulate.shell import Observer
from colo_compare.simulate.tcp import Contradiction, Socket, unwrap

if TYPE_CHECKING:
    from colo_compare.simulate.world import World

_HALF: Final = 1 << 31
_MASK: Final = 0xFFFFFFFF
_ACCOUNT_EVERY: Final = 8  # calls of the core

Flow = tuple[int, int, int]  # protocol, guest's port, client's port


class Oracle(Observer):
    """Looks at every frame that passes the proxy, knowing what each machine knows."""

    def __init__(self, world: "World") -> None:
        self._world: Final = world
        # Of each flow, what arrived and was not released: tag, whether it says something first, and the
        # sequence space of what is left of it.
        self._waiting: dict[Flow, list[tuple[int, bool, int]]] = {}
        self._newest: dict[Flow, int] = {}  # where the primary's stream ends so far
        self._isn: dict[tuple[int, int], int] = {}  # of the guests, as the client knows it; by ports
        self._calls = 0
        self._covered: set[int] = set()
        self._before: dict[tuple[int, int], int] = {}
        self.released_frames = 0

    def forget(self) -> None:
        """Note that the proxy, or its primary, is another one from now on."""
        self._waiting, self._newest = {}, {}

    # Frames

    def arrived(self, role: int, data: bytes) -> None:
        """Note what the primary says."""
        if self._world.tracing:
            self._world.note_frame(role, True, data)
        if role != PRIMARY:
            return
        seen = look(data)
        flow = (seen.protocol, seen.source_port, seen.target_port)
        new = True
        span = 0
        if seen.protocol == TCP:
            # What repeats, fills a hole or only acknowledges may overtake what waits for the secondary.
            span = seen.span
            end = (seen.seq + span) & _MASK
            new = span > 0 and (flow not in self._newest or 0 < (end - self._newest[flow]) & _MASK < _HALF)
            if new:
                self._newest[flow] = end
        waiting = self._waiting.get(flow)
        if waiting is None:
            self._waiting[flow] = [(seen.tag, new, span)]
        else:
            waiting.append((seen.tag, new, span))

    def released(self, data: bytes, kind: str) -> None:
        """Hold what goes to the client against what the secondary knows. Raises Contradiction."""
        self.released_frames += 1
        if self._world.tracing:
            self._world.note_frame(0, False, data)
        if data[12:14] == b"\x08\x06" or (data[12] == 0x86 and data[20] == ICMP6 and data[54] == 136):
            return  # the proxy announces where the guest is
        seen = look(data)
        if kind:
            self._flushed(seen)
        else:
            self._in_order(seen)
        self._stands_behind(seen, kind)

    def _in_order(self, seen: Seen) -> None:
        waiting = self._waiting.get((seen.protocol, seen.source_port, seen.target_port), [])
        at = next((index for index, (tag, _, _) in enumerate(waiting) if tag == seen.tag), -1)
        if at < 0:
            own = seen.protocol == TCP and seen.flags == ACK and not seen.payload  # a window that opens
            if not own:
                raise Contradiction(f"released twice, or never received: {seen}")
            return
        tag, new, span = waiting[at]
        if new and any(first for _, first, _ in waiting[:at]):
            raise Contradiction(f"it overtook another frame of its flow: {seen}")
        seen_span = seen.span if seen.protocol == TCP else 0
        if seen_span == span:
            del waiting[at]
        elif 0 < seen_span < span:
            waiting[at] = (tag, new, span - seen_span)  # it was cut, and the rest is still held
        else:
            raise Contradiction(f"it occupies {seen_span}, not {span} as it came: {seen}")

    def _flushed(self, seen: Seen) -> None:
        """Check what goes out at a promotion: said before, or what a commit unheard of covered."""
        before = self._before.get(seen.ports)
        if seen.times is None or before is None or seen.tag in self._covered:
            return
        back = (before - seen.times[0]) & _MASK
        if back and not back & _HALF:
            raise Contradiction(f"TSval steps back by {back}, PAWS drops it: {seen}")

    # The rule

    def _stands_behind(self, seen: Seen, kind: str) -> None:
        world = self._world
        ports = seen.ports
        if seen.protocol == TCP and seen.flags & SYN and ports not in self._isn:
            self._isn[ports] = seen.seq
        seat = world.secondary
        if kind or seat is None or not seat.alive or world.shell.proxy.mode != PROTECT:
            return
        guest = seat.guest
        if seen.protocol == UDP:
            if guest.datagrams.get(seen.payload[: REQUEST.size]) != seen.payload:
                raise Contradiction(f"the secondary knows nothing of this answer: {seen}")
        elif seen.protocol == TCP:
            socket = guest.sockets.get(ports)
            if seen.flags & RST:
                if socket is not None and not (socket.was_reset or socket.aborting):
                    raise Contradiction(f"the secondary has not reset this connection: {seen}")
            elif socket is None:
                raise Contradiction(f"the secondary knows nothing of this connection: {seen}")
            else:
                self._socket_stands_behind(seen, socket)

    def _socket_stands_behind(self, seen: Seen, socket: Socket) -> None:
        client = self._world.client.sockets.get((seen.target_port, seen.source_port))
        isn = self._isn.get(seen.ports)
        if isn is None:
            return  # the client has not seen its beginning: it will refuse this
        if seen.flags & ACK:
            if client is None:
                raise Contradiction(f"the client has no such connection: {seen}")
            ack = unwrap(seen.ack, client.isn, socket.rcv)
            if ack > socket.rcv:
                raise Contradiction(f"the secondary has got {socket.rcv} of the client's, not {ack}: {seen}")
            scale = 0 if seen.flags & SYN else socket.scale
            edge = ack + (seen.window << scale)
            if edge > max(socket.promised, socket.rcv):
                raise Contradiction(f"the secondary offers {socket.promised}, not {edge}: {seen}")
        at = unwrap(seen.seq, isn, socket.una) + (seen.flags & SYN > 0)
        end = at + len(seen.payload)
        if seen.payload:
            known = bytes(socket.out[max(at - socket.out_base, 0) : max(end - socket.out_base, 0)])
            if end > socket.data_end or not seen.payload.endswith(known):
                raise Contradiction(f"the secondary says something else at {at}, or not as much: {seen}")
        if seen.flags & FIN and not (socket.closing and end == socket.data_end):
            raise Contradiction(f"the secondary does not end its stream at {end}: {seen}")

    # The account

    def performed(self) -> None:
        """Check the account, and what is to be bounded. Raises Contradiction."""
        self._calls += 1
        if self._calls % _ACCOUNT_EVERY == 0:
            self.check_account()

    def check_account(self) -> None:
        """Received = released + held + discarded (rule 10), and nothing grows without limit."""
        proxy = self._world.shell.proxy
        counters = proxy.counters
        held = counters.received[PRIMARY] - counters.released_total() - counters.discarded_total()
        if held != proxy.held_frames or held < 0:
            raise Contradiction(f"{held} frames should be held, {proxy.held_frames} are")
        limit = proxy.settings.max_held_frames
        if held > limit + self._world.shell.primary.room + 64:
            raise Contradiction(f"{held} frames are held, {limit} may be")
        if held == 0 and not proxy.wants(PRIMARY):
            raise Contradiction("nothing is held, and the primary is not read")
        if counters.discarded["superseded"] or counters.discarded["unusable"]:
            raise Contradiction("frames were discarded for a reason that this world does not have")

    # Changes

    def told(self, event: Event) -> None:
        """Note what the core tells."""
        self._world.note(f"core: {event}")

    def promoted(self) -> None:
        """Note what the client has got so far. Raises Contradiction where two guests are alive."""
        self._before = {
            (remote, local): socket.ts_recent
            for (local, remote), socket in self._world.client.sockets.items()
            if socket.ts_recent is not None
        }
        self._covered = {tag for waiting in self._waiting.values() for tag, _, _ in waiting}
        self.forget()
        self._world.promoted()

    def ended(self, why: str) -> None:
        """Note that the proxy has nothing left to serve with."""
        self._world.ended(why)
