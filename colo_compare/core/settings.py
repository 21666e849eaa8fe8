"""What an operator can choose about the core. Durations are seconds, sizes bytes."""

import math
from dataclasses import dataclass
from typing import Final

PROTECT: Final = "protect"
OBSERVE: Final = "observe"
SOLO: Final = "solo"
BLOCK: Final = "block"
BYPASS: Final = "bypass"

MODES: Final = (PROTECT, OBSERVE, SOLO, BLOCK, BYPASS)


@dataclass(frozen=True)
class Settings:
    """The core's settings. `math.inf` switches a limit or a period off."""

    mode: str = PROTECT  # protect, observe or bypass: the mode to start in
    mirror: bool = True  # forward the client's frames to the guests
    rewrite: bool = True  # translate the secondary's sequence numbers and timestamps
    compare_timeout: float = 3.0  # a primary frame held longer than this requests a checkpoint
    datagram_window: float = 0.02  # how long unequal datagrams of one flow may merely be reordered
    mirror_retry: float = (
        0.02  # mirror client data once more when the secondary has not acknowledged it by then
    )
    coalesce: float = 0.0  # wait after the first divergence for more to share its checkpoint
    min_interval: float = 0.0  # between a commit and the next request
    max_interval: float = math.inf  # a checkpoint at least this often
    checkpoint_timeout: float = 10.0  # from request to commit; then the secondary counts as lost
    retry_interval: float = 0.5  # after a failed checkpoint
    max_failures: int = 3  # failed checkpoints in a row; then the secondary counts as lost
    on_secondary_loss: str = SOLO  # solo or block
    max_held_frames: int = 65536
    max_held_bytes: int = 64 << 20
    max_flow_bytes: int = (
        8 << 20
    )  # of one flow: what the secondary may be ahead, what is kept to mirror again
    max_flows: int = 1 << 20
    max_half_open: int = 1 << 16
    flow_seed: int = 0  # 88 bits that clients do not know: see flow_index
    idle_timeout: float = (
        7200.0  # established flows (RFC 5382, REQ-5: not below 2 h 4 min is asked of NATs only)
    )
    half_open_timeout: float = 60.0
    closed_timeout: float = 60.0
    datagram_idle_timeout: float = 60.0
    fragment_timeout: float = 30.0
    copies_state: bool = True  # a commit makes the secondary equal to the primary (not so for `null`)
    reports_pause: bool = (
        True  # the checkpointer says when the primary stopped; else everything from the request on is held
    )
    announce: bool = True  # gratuitous ARP / unsolicited neighbour advertisement after a promotion
