"""What a SYN agrees on for the whole connection (RFC 9293, 3.2; RFC 7323; RFC 2018)."""

from dataclasses import dataclass
from typing import Final

from mypy_extensions import i64

from colo_compare.wire.frame import Frame

NO_WINDOW_SCALE: Final = -1
"""`HandshakeOptions.window_scale` of a SYN without that option."""


@dataclass(init=False)  # what a dataclass generates is never compiled, and was half the cost of a new flow
class HandshakeOptions:
    """The options of a SYN or SYN-ACK. Two guests that differ in them have unequal connections."""

    mss: i64  # bytes; 0 where there is no such option
    window_scale: i64  # shift, as sent (RFC 7323, 2.3: more than 14 counts as 14); -1 for none
    sack_permitted: bool
    timestamps: bool

    def __init__(self, mss: i64, window_scale: i64, sack_permitted: bool, timestamps: bool) -> None:
        self.mss = mss
        self.window_scale = window_scale
        self.sack_permitted = sack_permitted
        self.timestamps = timestamps

    def agree(self, other: "HandshakeOptions") -> bool:
        """Whether the other SYN has the same: as `==`, which compiled costs twenty times as much."""
        return (
            self.mss == other.mss
            and self.window_scale == other.window_scale
            and self.sack_permitted == other.sack_permitted
            and self.timestamps == other.timestamps
        )


def handshake_options(frame: Frame) -> HandshakeOptions:
    """Read the options of a SYN frame.

    As Linux does: a malformed length ends the options, a known kind of a wrong length is skipped, and of two
    equal kinds the last counts.
    """
    data = frame.data
    at = frame.l4 + 20
    end = frame.payload
    mss: i64 = 0
    window_scale: i64 = NO_WINDOW_SCALE
    sack_permitted = False
    while at < end and data[at] != 0:
        option = data[at]
        if option == 1:
            at += 1
            continue
        length = data[at + 1] if at + 1 < end else 0
        if length < 2 or at + length > end:
            break
        if option == 2 and length == 4:
            mss = (data[at + 2] << 8) | data[at + 3]
        elif option == 3 and length == 3:
            window_scale = data[at + 2]
        elif option == 4 and length == 2:
            sack_permitted = True
        at += length
    return HandshakeOptions(mss, window_scale, sack_permitted, frame.tsval_at != 0)
