"""What the core counts. Every set of reasons is closed, so that each can be shown before it happens."""

from typing import Final

from colo_compare.core.histogram import Histogram
from colo_compare.core.sides import SIDE_NAMES
from colo_compare.wire.frame import KIND_NAMES, OPAQUE_REASONS

# Why a primary frame went out.
MATCHED: Final = "matched"  # the secondary said the same
COVERED: Final = "covered"  # a committed checkpoint stands behind it
NOT_COMPARED: Final = "not_compared"  # rule 4
UNPROTECTED: Final = "unprotected"  # solo or bypass: nobody to compare with
OBSERVED: Final = "observed"  # observe mode lets all pass
RELEASES: Final = (MATCHED, COVERED, NOT_COMPARED, UNPROTECTED, OBSERVED)

# Why a primary frame never will.
FAILOVER: Final = "failover"  # its guest died before the secondary said the same
SUPERSEDED: Final = "superseded"  # its connection was replaced by a new one of the same ports
CLIENT_RESET: Final = "client_reset"  # the client has reset the connection, and nobody hears it any more
UNUSABLE: Final = "unusable"  # shorter than its own virtio-net header
UNREWRITABLE: Final = "unrewritable"  # a fragment of a segment that would have to be rewritten
PRIMARY_DISCARDS: Final = (FAILOVER, SUPERSEDED, CLIENT_RESET, UNUSABLE, UNREWRITABLE)

# What became of a secondary frame.
S_COMPARED: Final = "compared"  # all that it said was matched, or had been before
S_NOT_COMPARED: Final = "not_compared"
S_VOID: Final = "void"  # sent before a checkpoint replaced the state that it came from
S_AGED_OUT: Final = "aged_out"  # the primary never said the same
S_OVERFLOW: Final = "overflow"  # too far ahead of the primary
S_UNPLACED: Final = "unplaced"  # of a flow whose sequence numbers cannot be translated yet
S_FLUSHED: Final = "flushed"  # sent to the client after a promotion
S_UNPROTECTED: Final = "unprotected"  # there is no protection that it could be part of
SECONDARY_FATES: Final = (
    S_COMPARED, S_NOT_COMPARED, S_VOID, S_AGED_OUT, S_OVERFLOW, S_UNPLACED, S_FLUSHED, S_UNPROTECTED,
)  # fmt: skip

# Why a client frame reached no guest, or one guest only.
C_OVERFLOW: Final = "overflow"  # more than can be kept while a checkpoint runs
C_TABLE_FULL: Final = "table_full"  # a SYN that the flow table has no room for
C_BLOCKED: Final = "unplaced"  # not mirrored: the secondary's sequence numbers are not known yet
CLIENT_DISCARDS: Final = (C_OVERFLOW, C_TABLE_FULL, C_BLOCKED)

# Why a checkpoint was asked for. The first group are divergences.
PAYLOAD: Final = "payload"
STREAM_END: Final = "fin"  # one side ended its stream where the other went on
RESET: Final = "rst"  # the secondary reset a connection on which the primary said more
HANDSHAKE: Final = "handshake"  # MSS, window scale, SACK or timestamps differ
SIGNED: Final = "unrewritable"  # TCP-MD5, TCP-AO or MPTCP
UNKNOWN_FLOW: Final = "unknown_flow"  # in mid-stream, and the two guests' offsets are not known
TIMEOUT: Final = "timeout"
STARTUP: Final = "startup"
PRESSURE: Final = "pressure"
TABLE_FULL: Final = "table_full"
PERIODIC: Final = "periodic"
OPERATOR: Final = "operator"
BACKEND: Final = "backend"  # the checkpointer began it by itself
REQUEST_REASONS: Final = (
    PAYLOAD, STREAM_END, RESET, HANDSHAKE, SIGNED, UNKNOWN_FLOW, TIMEOUT,
    STARTUP, PRESSURE, TABLE_FULL, PERIODIC, OPERATOR, BACKEND,
)  # fmt: skip

OUTCOMES: Final = ("committed", "failed", "timed_out")

# A hold may be as short as two reads of one loop, and as long as compare_timeout and a checkpoint.
SHORTEST_HOLD: Final = 0.0000625  # seconds, the first bound; the last one is 8.192
HOLD_BUCKETS: Final = 18


def _zeros(names: tuple[str, ...]) -> dict[str, int]:
    return dict.fromkeys(names, 0)


class Counters:
    """Totals since the start; none ever falls."""

    def __init__(self) -> None:
        self.received: list[int] = [0, 0, 0]  # frames, by side
        self.received_bytes: list[int] = [0, 0, 0]
        self.kinds: list[int] = [0] * len(KIND_NAMES)  # of all sides
        self.opaque: list[int] = [0] * len(OPAQUE_REASONS)
        self.released: dict[str, int] = _zeros(RELEASES)
        self.released_bytes = 0
        self.discarded: dict[str, int] = _zeros(PRIMARY_DISCARDS)
        self.secondary: dict[str, int] = _zeros(SECONDARY_FATES)
        self.client_discarded: dict[str, int] = _zeros(CLIENT_DISCARDS)
        self.compared_bytes = 0  # payload bytes that both guests said
        self.divergences: dict[str, int] = _zeros(REQUEST_REASONS)
        self.requests: dict[str, int] = _zeros(REQUEST_REASONS)
        self.checkpoints: dict[str, int] = _zeros(OUTCOMES)
        self.promotions = 0
        self.secondaries_lost = 0
        self.mirrored = 0  # client frames sent to the secondary
        self.mirrored_again = 0  # of these, repetitions of what it had not acknowledged
        self.holes_reported = 0  # of these, own acknowledgements that tell what of its frames was lost
        self.rewritten = 0  # frames whose sequence numbers, acknowledgements or timestamps were translated
        self.clamped = 0  # released frames whose window was reduced to the secondary's
        self.window_updates = 0  # acknowledgements of our own, to open a window that had been clamped
        self.split = 0  # first parts of primary frames that went out before the rest was matched
        self.overtaking = 0  # primary frames that went out before older ones of their flow
        self.neighbour_answers = 0  # the secondary's address resolution, answered by the proxy
        self.flows_opened = 0
        self.flows_evicted = 0
        self.hold_time = Histogram(SHORTEST_HOLD, HOLD_BUCKETS)  # of released frames that had to wait

    def released_total(self) -> int:
        """Give the number of primary frames that went out."""
        return sum(self.released.values())

    def discarded_total(self) -> int:
        """Give the number of primary frames that never will."""
        return sum(self.discarded.values())

    def snapshot(self) -> dict[str, object]:
        """Give everything by name, for status and metrics."""
        return {
            "received": dict(zip(SIDE_NAMES, self.received, strict=True)),
            "received_bytes": dict(zip(SIDE_NAMES, self.received_bytes, strict=True)),
            "kinds": dict(zip(KIND_NAMES, self.kinds, strict=True)),
            "opaque": {name: n for name, n in zip(OPAQUE_REASONS, self.opaque, strict=True) if name},
            "released": dict(self.released),
            "released_bytes": self.released_bytes,
            "discarded": dict(self.discarded),
            "secondary": dict(self.secondary),
            "client_discarded": dict(self.client_discarded),
            "compared_bytes": self.compared_bytes,
            "divergences": dict(self.divergences),
            "requests": dict(self.requests),
            "checkpoints": dict(self.checkpoints),
            "promotions": self.promotions,
            "secondaries_lost": self.secondaries_lost,
            "mirrored": self.mirrored,
            "mirrored_again": self.mirrored_again,
            "holes_reported": self.holes_reported,
            "rewritten": self.rewritten,
            "clamped": self.clamped,
            "window_updates": self.window_updates,
            "split": self.split,
            "overtaking": self.overtaking,
            "neighbour_answers": self.neighbour_answers,
            "flows_opened": self.flows_opened,
            "flows_evicted": self.flows_evicted,
            "held_seconds": self.hold_time.sum,
            "held_releases": self.hold_time.total(),
        }
