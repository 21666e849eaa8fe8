"""What a SYN agrees on for the whole connection (RFC 9293, 3.2; RFC 7323; RFC 2018)."""

from dataclasses import dataclass

from colo_compare.wire.frame import Frame

NO_WINDOW_SCALE = -1
"""`HandshakeOptions.window_scale` of a SYN without that option."""


@dataclass(frozen=True)
class HandshakeOptions:
    """The options of a SYN or SYN-ACK. Two guests that differ in them have unequal connections."""

    mss: int  # bytes; 0 where there is no such option
    window_scale: int  # shift, as sent (RFC 7323, 2.3: more than 14 counts as 14); -1 for none
    sack_permitted: bool
    timestamps: bool


def handshake_options(frame: Frame) -> HandshakeOptions:
    """Read the options of a SYN frame.

    As Linux does: a malformed length ends the options, a known kind of a wrong length is skipped, and of two
    equal kinds the last counts.
    """
    data = frame.data
    at = frame.l4 + 20
    end = frame.payload
    mss = 0
    window_scale = NO_WINDOW_SCALE
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
