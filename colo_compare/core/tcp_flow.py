"""One TCP connection between the client and the two guests.

Every sequence number is kept as a position (see wire.seq): the guests' stream in the *client's sequence
space*, the client's own stream as it is. Each guest has an offset from its own numbers to that space, and
one from its timestamp clock. The primary's are zero until it has been promoted once; the secondary's are
known from the two handshakes, or since a checkpoint made the two guests equal.
"""

from collections import deque
from typing import Final

from mypy_extensions import i64, mypyc_attr, u8

from colo_compare.core.hold import Flow, Held
from colo_compare.core.stream import NOWHERE, StreamComparer
from colo_compare.wire.flow_key import NO_PORTS, PLAIN_KEY_LEN, plain_addresses, plain_key, plain_ports
from colo_compare.wire.frame import ACK, SYN, Frame
from colo_compare.wire.seq import diff, unwrap, wrap

HALF_OPEN: Final = 0
ESTABLISHED: Final = 1
CLOSED: Final = 2

STATE_NAMES: Final = ("half_open", "established", "closed")

UNKNOWN_SHIFT: Final = -1


@mypyc_attr(acyclic=True)
class Guest:
    """One guest's end of a connection."""

    placed: bool  # its sequence numbers can be translated to the client's space
    reset: bool  # it has sent a RST
    settled: bool  # it has sent more than a SYN, so that it no longer minds which SYN an echo answers
    seq_offset: i64  # what to add for that, modulo 2^32
    ts_offset: i64  # the same for its timestamp clock
    end: i64  # highest position that it has sent
    ack: i64  # highest client position that it has acknowledged
    window: i64  # what it offers behind `ack`: bytes, or unscaled where the flow's shift is unknown
    fin: i64  # position of its FIN
    tsval: i64  # newest timestamp that it has sent, by its own clock; -1 if none
    syn: "Frame | None"  # its SYN, until the other guest's has come

    def __init__(self) -> None:
        self.placed = False
        self.seq_offset = 0
        self.ts_offset = 0
        self.end = NOWHERE
        self.ack = NOWHERE
        self.window = 0
        self.fin = NOWHERE
        self.reset = False
        self.settled = False
        self.tsval = -1
        self.syn = None

    def note(self, frame: Frame, end: i64, ack: i64, window: i64) -> None:
        """Take over what a frame says of this guest's state. `ack` is NOWHERE where it has none."""
        if end > self.end:
            self.end = end
        if not frame.flags & SYN:
            self.settled = True
        if ack != NOWHERE:
            if ack >= self.ack:
                self.ack = ack
                self.window = window
        elif self.ack == NOWHERE:
            self.window = window
        if frame.tsval_at and (self.tsval < 0 or diff(frame.tsval, self.tsval) > 0):
            self.tsval = frame.tsval

    def become(self, other: "Guest") -> None:
        """Be equal to the other guest, as a checkpoint makes it."""
        self.placed = other.placed
        self.seq_offset = other.seq_offset
        self.ts_offset = other.ts_offset
        self.end = other.end
        self.ack = other.ack
        self.window = other.window
        self.fin = other.fin
        self.reset = other.reset
        self.settled = other.settled
        self.tsval = other.tsval
        self.syn = None


@mypyc_attr(acyclic=True)
class ClientSegment:
    """Client data that a guest has not acknowledged yet, kept to be mirrored again."""

    start: i64
    end: i64
    frame: Frame

    def __init__(self, start: i64, end: i64, frame: Frame) -> None:
        self.start = start
        self.end = end
        self.frame = frame


@mypyc_attr(acyclic=True)
class InFlight:
    """The client data of a flow that a guest has not acknowledged. Most flows are idle, and have none."""

    segments: deque[ClientSegment]
    bytes: i64  # of their frames
    retry_at: float  # when to mirror again what the secondary has not acknowledged
    retries: i64

    def __init__(self) -> None:
        self.segments = deque()
        self.bytes = 0
        self.retry_at = 0.0
        self.retries = 0


@mypyc_attr(acyclic=True)
class Clamp:
    """What the client was told of a window that had to be reduced to the secondary's."""

    frame: Frame  # the last one out
    ack: i64
    window: i64  # what the client saw, bytes

    def __init__(self, frame: Frame, ack: i64, window: i64) -> None:
        self.frame = frame
        self.ack = ack
        self.window = window


@mypyc_attr(acyclic=True)
class TcpFlow(Flow):
    """One connection. The fields are read and written by core.tcp; here is what concerns one flow alone."""

    # Small ones together: compiled, each between two numbers would take a word of its own (40 bytes a flow).
    state: u8
    guessed: bool  # picked up in mid-stream: where its stream stands is only a guess so far
    alone: bool  # the secondary never had it, and no checkpoint will give it to it
    cut: bool  # the client knows numbers of a guest that is gone, and nobody those of the other one
    client_reset: bool  # by the last frame of the client
    monotonic: bool  # a guest was promoted, or a frame overtook: timestamps must not step back

    def __init__(self, key: bytes, now: float, generation: i64) -> None:
        plain = len(key) == PLAIN_KEY_LEN
        super().__init__(b"" if plain else key, now)
        self.state = HALF_OPEN
        self.guessed = False
        self.alone = False
        self.cut = False
        self.monotonic = False
        self.client_reset = False
        self.addresses: i64 = 0
        self.ports: i64 = NO_PORTS
        if plain:
            self.addresses = plain_addresses(key)
            self.ports = plain_ports(key)
        self.following: TcpFlow | None = None  # the next one in its slot of `FlowIndex`
        # First what each frame asks for: among 200,000 flows the cache has few of these lines, and every one
        # costs as much as a tenth of the comparison.
        self.generation = generation  # of the last checkpoint that it has taken part in
        self.primary = Guest()
        self.secondary = Guest()
        self.stream = StreamComparer(NOWHERE)
        self.shift: i64 = UNKNOWN_SHIFT  # window scale of the guests
        self.client_end: i64 = NOWHERE  # highest position that the client has sent
        # Primary frames that wait, in arrival order; None while there are none: most flows are idle
        self.queue: Held | None = None  # the first one, which leads to the next
        self.queue_last: Held | None = None
        self.early: Held | None = None  # the first one whose bytes are not in `stream` yet: see tcp_steady
        self.acks: Held | None = None  # as `queue`, for lone acknowledgements; `queue` has the other frames
        # What the client has seen
        self.released_end: i64 = NOWHERE
        self.released_ack: i64 = NOWHERE
        self.out_tsval: i64 = -1  # newest timestamp that it got, in the client's space
        self.clamped: Clamp | None = None  # if the window of the last frame out was reduced
        # What the secondary has said and the primary has not: sent on after a promotion
        self.ack_frame: Frame | None = None  # its newest acknowledgement, if the client has not seen as much
        self.in_flight: InFlight | None = None
        self.short_ack: Frame | None = None  # a client frame whose acknowledgement was cut (observe mode)
        # Then the rest
        self.acks_last: Held | None = None
        self.isn: i64 = NOWHERE  # position of the guests' SYN
        self.base: i64 = NOWHERE  # lowest position of a guess: what lies below it has not been compared
        self.client_ack: i64 = NOWHERE  # highest position that the client has acknowledged
        self.client_window: i64 = 0  # what it offered with that, as it stands on the wire
        self.client_tsval: i64 = 0  # its newest timestamp
        self.client_fin: i64 = NOWHERE
        self.client_syn: Frame | None = None  # until the handshake is over
        self.waiting: list[Frame] | None = None  # client frames for a secondary that is not placed yet
        self.loose: list[Frame] | None = None  # the secondary's SYN, FIN and RST frames, as `ack_frame`

    @property
    def key(self) -> bytes:
        """The key; a plain flow has it as two numbers, and 48 bytes less."""
        return self.long_key if self.ports < 0 else plain_key(self.addresses, self.ports)

    def place(self, guest: Guest, frame: Frame) -> i64:
        """Give the position of a placed guest's frame in the client's space."""
        seq = frame.seq + guest.seq_offset
        near = self.stream.matched
        return unwrap(seq, near if near != NOWHERE else seq)

    def guess(self, position: i64) -> None:
        """Say where a stream stands that was picked up in the middle: at the lowest position that was heard.

        What a guest says first need not be what it sent first; its frames may be lost or reordered on their
        way here. The guess is over when the client has acknowledged all below it.
        """
        stream = self.stream
        if stream.matched == NOWHERE:
            stream.matched = self.base = position
            if self.client_ack != NOWHERE:
                # Noted as the bare number: the positions may have begun on the other side of 2^32.
                self.client_ack = unwrap(wrap(self.client_ack), position)
        elif self.client_ack >= self.base:
            self.guessed = False
        elif position < self.base:
            position = max(position, self.client_ack)
            stream.start_again(position, self.base)
            self.base = position

    def ack_of(self, frame: Frame) -> i64:
        """Give the client position that a guest's frame acknowledges, NOWHERE if it acknowledges nothing."""
        if not frame.flags & ACK:
            return NOWHERE
        ack = unwrap(frame.ack, self.client_end if self.client_end != NOWHERE else frame.ack)
        if ack > self.client_end:
            self.client_end = ack
        return ack

    def scaled(self, frame: Frame) -> i64:
        """Give the window of a guest's frame in bytes (RFC 7323, section 2.2: a SYN's is not scaled)."""
        if self.shift > 0 and not frame.flags & SYN:
            return frame.window << self.shift
        return frame.window

    def is_repetition(self, guest: Guest, frame: Frame) -> bool:
        """Whether a SYN of a guest belongs to the connection that it has, and does not begin another."""
        if guest.syn is not None:
            return guest.syn.seq == frame.seq
        if self.primary.syn is not None:
            return False  # the primary's waits for this one, whatever its number
        return guest.placed and self.isn != NOWHERE and self.place(guest, frame) == self.isn

    def begins_anew(self, frame: Frame) -> bool:
        """Whether a SYN of the primary, with another number than this connection's, begins the next one.

        It may be a late copy of an older connection's. A SYN-ACK answers a SYN that the client has sent; of a
        SYN alone, the number has grown since (RFC 9293, section 3.4.1), unless the old connection is over.
        """
        client_syn = self.client_syn
        if frame.flags & ACK and client_syn is not None:
            return frame.ack == (client_syn.seq + 1) & 0xFFFFFFFF
        if self.state == CLOSED or self.primary.end == NOWHERE:
            return True
        return (
            not (frame.flags & ACK and self.client_end != NOWHERE)
            and self.place(self.primary, frame) > self.primary.end
        )

    def catch_up(self, generation: i64) -> None:
        """Do what the commits since this flow was last touched have done to it.

        Lazy, because a commit that walked over a million idle flows would stall the proxy for a second.
        Nothing that the primary sent since reached this flow, so that its state is the one at the pause.
        """
        self.generation = generation
        self.secondary.become(self.primary)
        self.early = None
        if self.primary.syn is not None:
            self.primary.syn = None
        if self.primary.placed:
            self.stream.skip_to(self.primary.end)
        self.drop_secondary_output()
        self.blocked = False
        self.guessed = self.primary.placed and self.primary.end == NOWHERE
        self.clamped = None

    def realign(self) -> None:
        """Go on after a divergence without a copy of the state: from where the primary is, offsets kept."""
        if self.primary.placed:
            self.stream.skip_to(self.primary.end)
        self.blocked = False

    def drop_secondary_output(self) -> int:
        """Forget what the secondary said and the primary did not; give the number of frames."""
        dropped = self.stream.forget_secondary()
        if self.loose is not None:
            dropped += len(self.loose)
            self.loose = None
        self.ack_frame = None
        return dropped

    def unmatched_output(self) -> list[Frame]:
        """Give the secondary's frames that say more than the primary has, in stream order."""
        frames: list[Frame] = []
        if self.stream.secondary is not None:
            frames = self.stream.secondary.frames()
        if self.loose is not None:
            for frame in self.loose:
                if frame not in frames:
                    frames.append(frame)
        acknowledgement = self.ack_frame
        if acknowledgement is not None and all(diff(acknowledgement.ack, frame.ack) > 0 for frame in frames):
            frames.append(acknowledgement)
        return frames

    def promote(self) -> None:
        """Let the secondary be the primary; its offsets stay, and there is no secondary any more."""
        self.cut = self.released_end != NOWHERE and not self.secondary.placed
        self.primary = self.secondary
        self.secondary = Guest()
        if self.primary.syn is not None:
            # The old primary's SYN never reached anybody: this guest's numbers are the client's from now on.
            self.primary.syn = None
            self.primary.placed = False
            self.isn = NOWHERE
            self.stream = StreamComparer(NOWHERE)
        elif self.primary.placed:
            self.stream.primary = None
            self.stream.skip_to(self.primary.end)
            self.stream.secondary = None
        self.blocked = False
        self.guessed = False
        self.drop_held()
        self.in_flight = None
        self.waiting = None
        self.short_ack = None
        self.clamped = None
        self.ack_frame = None
        self.loose = None
        self.monotonic = True

    def rewritten(self) -> bool:
        """Whether the primary's frames need a rewriter."""
        return self.primary.seq_offset != 0 or self.primary.ts_offset != 0

    def forgettable(self) -> bool:
        """Whether nothing is lost when this flow leaves the table and is picked up again in mid-stream."""
        secondary = self.secondary
        shifted = secondary.seq_offset != 0 or secondary.ts_offset != 0
        return self.holds_nothing() and not shifted and not self.rewritten()

    def holds_nothing(self) -> bool:
        """Whether no frame of the primary waits here."""
        return self.queue is None and self.acks is None

    def enqueue(self, held: Held, lone_ack: bool) -> None:
        """Append a frame that has to wait."""
        if lone_ack:
            last = self.acks_last
            self.acks_last = held
            if last is None:
                self.acks = held
            else:
                last.next = held
        else:
            last = self.queue_last
            self.queue_last = held
            if last is None:
                self.queue = held
            else:
                last.next = held

    def spell_out(self) -> None:
        """Put the bytes of early frames in their places in the stream."""
        held = self.early
        self.early = None
        while held is not None:
            frame = held.frame
            start = held.end - (frame.end - frame.payload)
            self.stream.offer(True, start, frame.data, frame.payload, frame.end, None, held.at)
            held = held.next

    def first_in_queue(self) -> "Held | None":
        """Give the first frame that waits, lone acknowledgements left aside."""
        held = self.queue
        while held is not None and held.done:
            held = held.next
        self.queue = held
        if held is None:
            self.queue_last = None
        return held

    def first_ack(self) -> "Held | None":
        """Give the first lone acknowledgement that waits."""
        held = self.acks
        while held is not None and held.done:
            held = held.next
        self.acks = held
        if held is None:
            self.acks_last = None
        return held

    def take_first(self, held: Held) -> None:
        """Take out the first frame of one of the two queues."""
        if self.queue is held:
            self.queue = held.next
            if held.next is None:
                self.queue_last = None
        else:
            if self.queue is not None:
                self.monotonic = True  # an acknowledgement overtakes
            self.acks = held.next
            if held.next is None:
                self.acks_last = None
        held.next = None

    def take_held(self) -> list[Held]:
        """Give all frames that wait, none of which does so any more."""
        taken: list[Held] = []
        for first in (self.queue, self.acks):
            held = first
            while held is not None:
                if not held.done:
                    taken.append(held)
                held = held.next
        self.drop_held()
        return taken

    def drop_held(self) -> None:
        """Forget all frames that wait; they have been dealt with.

        One by one: a chain of 100,000 that is let go of at its head is freed by as many calls in each other.
        """
        for first in (self.queue, self.acks):
            held = first
            while held is not None:
                following = held.next
                held.next = None
                held = following
        self.queue = self.queue_last = self.early = None
        self.acks = self.acks_last = None
