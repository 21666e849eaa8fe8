"""What must be true at every moment of a run: the output-commit rule, and the account of every frame."""

from typing import TYPE_CHECKING, Final

from colo_compare.core.actions import CheckpointCommitted, Event, ModeChanged
from colo_compare.core.epochs import PAUSED
from colo_compare.core.settings import BLOCK, PROTECT
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.simulate.hosts import Guest
from colo_compare.simulate.packets import ACK, FIN, ICMP6, RST, SYN, TCP, UDP, Seen, look
from colo_compare.simulate.seat import SeatedGuest
from colo_compare.simulate.service import REQUEST
from colo_compare.simulate.shell import BATCH, Observer
from colo_compare.simulate.tcp import Contradiction, Socket, unwrap

if TYPE_CHECKING:
    from colo_compare.simulate.world import World

_ARP: Final = b"\x08\x06"
_HALF: Final = 1 << 31
_MASK: Final = 0xFFFFFFFF
_ACCOUNT_EVERY: Final = 8  # calls of the core
_ROOMY: Final = 1 << 20  # bytes of a flow that may be kept, of which no scenario has as many
_BURST: Final = 1000  # bytes that surely fit in what is mirrored again at once

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
        # What a promotion must flush: of each flow, the place up to which the secondary has said something
        # since it was loaded, and when; what the primary had said of it; and what the client was sent.
        self._said: dict[tuple[int, int], tuple[int, float]] = {}
        self._said_first: dict[tuple[int, int], int] = {}  # by the primary
        self._reached: dict[tuple[int, int], int] = {}
        self._flush_due = False
        # What a commit must mirror again: of each flow of the client, the place up to which the primary, and
        # in this call of the core the secondary, were sent something.
        self._forwarded: dict[tuple[int, int], int] = {}
        self._repeated: dict[tuple[int, int], int] = {}
        self._repetition_due = False
        self._promotions = 0
        self.released_frames = 0

    def forget(self) -> None:
        """Note that the proxy, or its primary, is another one from now on."""
        self._waiting, self._newest = {}, {}
        self._forwarded = {}

    # Frames

    def arrived(self, role: int, data: bytes) -> None:
        """Note what the primary says."""
        if self._world.tracing:
            self._world.note_frame(role, True, data)
        if role == CLIENT or data[12:14] == _ARP:
            return
        seen = look(data)
        if role == SECONDARY:
            self._note_said(seen)
            return
        shell = self._world.shell
        if shell.proxy.held_frames >= shell.settings.max_held_frames and not shell.draining:
            raise Contradiction("the primary is read, and there is no room for what it says")
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
                socket = _socket(self._world.primary.guest, seen.ports)
                if socket is not None:
                    end = unwrap(seen.seq, socket.isn, socket.una) + span
                    self._said_first[seen.ports] = max(end, self._said_first.get(seen.ports, 0))
        waiting = self._waiting.get(flow)
        if waiting is None:
            self._waiting[flow] = [(seen.tag, new, span)]
        else:
            waiting.append((seen.tag, new, span))

    def _note_said(self, seen: Seen) -> None:
        seat = self._world.secondary
        if seen.protocol != TCP or not seen.payload or seat is None:
            return
        socket = _socket(seat.guest, seen.ports)
        if socket is not None:
            end = unwrap(seen.seq, socket.isn, socket.una) + len(seen.payload)
            known, since = self._said.get(seen.ports, (0, 0.0))
            if known <= self._said_first.get(seen.ports, 0):
                since = self._world.schedule.now  # it is ahead of the primary from now on
            if end > known:
                self._said[seen.ports] = (end, since)

    def mirrored(self, role: int, data: bytes) -> None:
        """Note which of the client's bytes a guest is sent."""
        if self._world.tracing:
            self._world.note_frame(role, False, data)
        if data[12:14] == _ARP:
            return
        seen = look(data)
        shell = self._world.shell
        # PAUSED alone would be too strict: what one call of the core sends goes before what it asks for.
        if role == SECONDARY and shell.proxy.checkpoint_state == PAUSED and shell.replaces_state:
            raise Contradiction(f"mirrored while the secondary's state is replaced: {seen}")
        if seen.protocol != TCP or not seen.payload:
            return
        socket = self._world.client.sockets.get(seen.ports)
        if socket is not None:
            end = unwrap(seen.seq, socket.isn, socket.una) + len(seen.payload)
            places = self._forwarded if role == PRIMARY else self._repeated
            places[seen.ports] = max(end, places.get(seen.ports, 0))

    def released(self, data: bytes, kind: str) -> None:
        """Hold what goes to the client against what the secondary knows. Raises Contradiction."""
        self.released_frames += 1
        if self._world.tracing:
            self._world.note_frame(0, False, data)
        if data[12:14] == _ARP or (data[12] == 0x86 and data[20] == ICMP6 and data[54] == 136):
            return  # the proxy announces where the guest is
        seen = look(data)
        if self._world.shell.proxy.mode == BLOCK:
            raise Contradiction(f"released, and there is no secondary: {seen}")
        if kind:
            self._flushed(seen)
        else:
            self._in_order(seen)
        self._stands_behind(seen, kind)
        isn = self._isn.get(seen.ports)
        if seen.payload and isn is not None and seen.protocol == TCP:
            reached = self._reached.get(seen.ports, 0)
            self._reached[seen.ports] = max(reached, unwrap(seen.seq, isn, reached) + len(seen.payload))

    def _in_order(self, seen: Seen) -> None:
        if not isinstance(self._world.primary.guest, Guest):
            return  # its packets have no names
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
        if not world.shell.proxy.protected:
            raise Contradiction(f"no commit stands behind this pair: {seen}")
        guest = seat.guest
        if not isinstance(guest, Guest):
            return  # nobody can look into an embedded one: the client is the witness
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
        if self._flush_due:
            self._flush_due = False
            self._check_flush()
        if self._repetition_due:
            self._repetition_due = False
            self._check_repetition()
        self._repeated = {}

    def _check_flush(self) -> None:
        """Check that what the promoted guest had said has gone out at once (rule 8)."""
        settings = self._world.scenario.settings
        since = self._world.schedule.now - settings.compare_timeout
        for ports, (end, at) in self._said.items():
            client = self._world.client.sockets.get((ports[1], ports[0]))
            if client is None or client.was_reset:
                continue
            isn, reached = self._isn.get(ports), self._reached.get(ports, 0)
            alone = end > self._said_first.get(ports, 0) and at > since
            if alone and isn is not None and reached < end and settings.max_flow_bytes >= _ROOMY:
                raise Contradiction(f"the survivor had said {end} of {ports}, the client was sent {reached}")
        self._said, self._said_first = {}, {}

    def _check_repetition(self) -> None:
        """Check that a new state is told what the client had sent and it has not got (rule 7)."""
        seat = self._world.secondary
        if seat is None or not seat.alive or self._world.scenario.settings.max_flow_bytes < _ROOMY:
            return
        for (local, remote), end in self._forwarded.items():
            socket = _socket(seat.guest, (remote, local))
            if socket is None or not socket.established or socket.was_reset:
                continue
            if self._world.client.sockets[local, remote].was_reset:
                continue  # it is of no interest any more
            told = max(socket.rcv, self._repeated.get((local, remote), 0))
            if told < end and end - socket.rcv < _BURST:
                raise Contradiction(
                    f"of {(local, remote)} the new state was told {told}, the client sent {end}"
                )

    def check_account(self) -> None:
        """Received = released + held + discarded (rule 10), and nothing grows without limit."""
        proxy = self._world.shell.proxy
        counters = proxy.counters
        held = counters.received[PRIMARY] - counters.released_total() - counters.discarded_total()
        if held != proxy.held_frames or held < 0:
            raise Contradiction(f"{held} frames should be held, {proxy.held_frames} are")
        limit = proxy.settings.max_held_frames
        if held > limit + self._world.shell.primary.room + BATCH:
            raise Contradiction(f"{held} frames are held, {limit} may be")
        if held == 0 and not proxy.wants(PRIMARY):
            raise Contradiction("nothing is held, and the primary is not read")
        if counters.discarded["failover"] and not self._promotions:
            raise Contradiction("frames were discarded, and nobody has died")
        if counters.discarded["superseded"] or counters.discarded["unusable"]:
            raise Contradiction("frames were discarded for a reason that this world does not have")

    # Changes

    def told(self, event: Event) -> None:
        """Note what the core tells."""
        if isinstance(event, CheckpointCommitted):
            self._said = {}
            self._repetition_due = True
        elif isinstance(event, ModeChanged):
            self._forwarded = {}  # of what went to a guest that was alone, nothing is kept
        self._world.note(f"core: {event}")

    def promoted(self) -> None:
        """Note what the client has got so far. Raises Contradiction where two guests are alive."""
        self._before = {
            (remote, local): socket.ts_recent
            for (local, remote), socket in self._world.client.sockets.items()
            if socket.ts_recent is not None
        }
        self._promotions += 1
        self._flush_due = True
        self._covered = {tag for waiting in self._waiting.values() for tag, _, _ in waiting}
        self.forget()
        self._world.promoted()

    def ended(self, why: str) -> None:
        """Note that the proxy has nothing left to serve with."""
        self._world.ended(why)


def _socket(guest: SeatedGuest, ports: tuple[int, int]) -> Socket | None:
    """Give a guest's end of a connection, where one can look into it."""
    return guest.sockets.get(ports) if isinstance(guest, Guest) else None
