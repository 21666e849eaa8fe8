"""Connections begin: passive and active opens (RFC 9293, 3.5, 3.10.7.2 and 3.10.7.3)."""

import hashlib

from colo_compare.guest import connection as table
from colo_compare.guest import ip, tcp_recovery, tcp_window
from colo_compare.guest.applications import listener
from colo_compare.guest.connection import (
    ESTABLISHED,
    SYN_RECEIVED,
    SYN_SENT,
    UNKNOWN,
    Connection,
)
from colo_compare.guest.tcp_segment import TIMESTAMPS_LEN, own_mss, reset_answer
from colo_compare.guest.turn import Turn
from colo_compare.wire import handshake
from colo_compare.wire.frame import ACK, RST, SYN, Frame
from colo_compare.wire.seq import unwrap

_MASK = 0xFFFFFFFF
DEFAULT_MSS_IPV4 = 536  # RFC 9293, 3.7.1
DEFAULT_MSS_IPV6 = 1220
SMALLEST_MSS = 64
MAX_SCALE = 14  # RFC 7323, 2.3


def _numbers(turn: Turn, key: bytes) -> tuple[int, int]:
    """Give a connection's initial sequence number (RFC 6528) and timestamp offset (RFC 7323, 5.4)."""
    digest = hashlib.blake2s(key, key=turn.header.secret).digest()
    times = int.from_bytes(digest[4:8], "big")
    if turn.noise.random_isn:
        return turn.noise.token() & _MASK, times
    clock = turn.now // 4  # a tick each 4 microseconds
    return (int.from_bytes(digest[:4], "big") + clock) & _MASK, times


def _new(turn: Turn, key: bytes, version: int) -> Connection | None:
    made = table.add(turn.memory, turn.geometry, key)
    if made is None:
        turn.header.refused += 1
        return None
    made.version = version
    made.iss, made.ts_offset = _numbers(turn, key)
    made.snd_una = made.snd_nxt = made.snd_max = made.iss
    made.snd_end = made.iss + 1
    made.rto = tcp_recovery.FIRST_RTO
    made.timed = made.recover = made.rcv_fin = UNKNOWN
    made.rcv_scale = tcp_window.scale_for(made.receive_size)
    made.sack = made.timestamps = 1
    made.heard_at = turn.now
    turn.touched[made.index] = made
    return made


def listen(turn: Turn, key: bytes, frame: Frame, after: int = UNKNOWN) -> None:
    """Take a segment that belongs to no connection (RFC 9293, 3.10.7.2).

    `after`: where an earlier connection with this key stopped sending; the new one begins behind it.
    """
    if frame.flags & RST:
        return
    app = listener((key[32] << 8) | key[33])
    if frame.flags & ACK or not frame.flags & SYN or not app:
        reset_answer(turn, frame)
        return
    made = _new(turn, key, frame.version)
    if made is None:
        return
    if after != UNKNOWN:
        made.iss = (after + 0x20000) & _MASK  # RFC 9293, 3.10.7.4: larger than the last number used
        made.snd_una = made.snd_nxt = made.snd_max = made.iss
        made.snd_end = made.iss + 1
    made.app = app
    made.state = SYN_RECEIVED
    _take_options(turn, made, frame)


def _take_options(turn: Turn, made: Connection, frame: Frame) -> None:
    """Agree to what the other end's SYN offers, and note where its bytes begin."""
    offered = handshake.handshake_options(frame)
    mss = offered.mss or (DEFAULT_MSS_IPV4 if made.version == 4 else DEFAULT_MSS_IPV6)
    mss = max(min(mss, own_mss(turn, made.version)), SMALLEST_MSS)
    made.timestamps = int(offered.timestamps)
    made.sack = int(offered.sack_permitted)
    if offered.window_scale == handshake.NO_WINDOW_SCALE:
        made.rcv_scale = -1
        made.snd_scale = 0
    else:
        made.snd_scale = min(offered.window_scale, MAX_SCALE)
    made.mss = mss - (TIMESTAMPS_LEN if made.timestamps else 0)
    made.ts_recent = frame.tsval if made.timestamps else 0
    made.irs = frame.seq
    made.rcv_nxt = made.rcv_read = frame.seq + 1
    made.rcv_edge = made.rcv_nxt
    made.snd_wnd = made.snd_wnd_max = frame.window
    made.snd_wl1 = frame.seq
    tcp_recovery.start(made)


def connect(turn: Turn, target: bytes, port: int, source_port: int, app: int) -> Connection | None:
    """Open a connection; None if there is no room, or if this one is open already."""
    source = ip.own_for(turn.header, target)
    key = source + target + source_port.to_bytes(2, "big") + port.to_bytes(2, "big")
    if table.find(turn.memory, turn.geometry, key) is not None:
        return None
    made = _new(turn, key, 4 if target[:12] == source[:12] and target[10:12] == b"\xff\xff" else 6)
    if made is not None:
        made.app = app
        made.state = SYN_SENT
        made.mss = own_mss(turn, made.version) - TIMESTAMPS_LEN
        tcp_recovery.start(made)
    return made


def answered(turn: Turn, waiting: Connection, frame: Frame) -> None:
    """Take a segment in SYN_SENT (RFC 9293, 3.10.7.3)."""
    flags = frame.flags
    acknowledges = flags & ACK and unwrap(frame.ack, waiting.snd_una) == waiting.iss + 1
    if flags & ACK and not acknowledges:
        reset_answer(turn, frame)
        return
    if flags & RST:
        if acknowledges:
            turn.header.resets_in += 1
            table.remove(turn.memory, turn.geometry, waiting)
        return
    if not flags & SYN:
        return
    _take_options(turn, waiting, frame)
    turn.touched[waiting.index] = waiting
    if acknowledges:
        established(turn, waiting, waiting.iss + 1)
        waiting.rcv_edge = waiting.rcv_nxt + min(waiting.receive_size, 0xFFFF)  # as the SYN offered it
        waiting.ack_due = 1
    else:  # both ends open at once (RFC 9293, figure 8)
        waiting.state = SYN_RECEIVED
        waiting.snd_nxt = waiting.iss


def established(turn: Turn, opened: Connection, ack: int) -> None:
    """Note that the other end has acknowledged the SYN."""
    turn.header.opened += 1
    opened.state = ESTABLISHED
    opened.snd_una = ack
    opened.snd_nxt = max(opened.snd_nxt, ack)
    opened.snd_wl2 = ack
    opened.progress = 1
    if opened.timed != UNKNOWN:
        tcp_recovery.sample(opened, turn.now - opened.timed_at)
        opened.timed = UNKNOWN
    else:
        opened.rto = tcp_recovery.FIRST_RTO
    opened.retries = 0
    opened.timer = table.NO_TIMER
