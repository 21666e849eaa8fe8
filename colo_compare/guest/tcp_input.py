"""Segments that arrive for a connection (RFC 9293, 3.10.7.4), with the checks of RFC 5961 and RFC 7323."""

from colo_compare.guest import connection as table
from colo_compare.guest import ip, tcp_open, tcp_output, tcp_receive, tcp_recovery, tcp_sack, tcp_window
from colo_compare.guest.connection import (
    CLOSE_WAIT,
    CLOSING,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    LINGER,
    RETRANSMIT,
    SYN_RECEIVED,
    SYN_SENT,
    TIME_WAIT,
    UNKNOWN,
    Connection,
)
from colo_compare.guest.tcp_segment import reset_answer
from colo_compare.guest.turn import Turn
from colo_compare.wire.frame import ACK, FIN, RST, SYN, Frame
from colo_compare.wire.seq import diff, unwrap

TIME_WAIT_LENGTH = 60_000_000  # microseconds: twice a maximum segment lifetime of 30 s
FIN_WAIT_2_LENGTH = 60_000_000  # applications here never wait for an answer after they have closed


def receive(turn: Turn, frame: Frame) -> None:
    """Take one segment."""
    target = ip.destination_of(frame)
    if not ip.is_own(turn.header, target):
        turn.header.foreign += 1
        return
    data = frame.data
    l4 = frame.l4
    key = target + ip.source_of(frame) + data[l4 + 2 : l4 + 4] + data[l4 : l4 + 2]
    connection = table.find(turn.memory, turn.geometry, key)
    if connection is None:
        tcp_open.listen(turn, key, frame)
    elif connection.state == SYN_SENT:
        tcp_open.answered(turn, connection, frame)
    elif connection.state == TIME_WAIT and _begins_anew(connection, frame):
        after = connection.snd_max
        table.remove(turn.memory, turn.geometry, connection)
        tcp_open.listen(turn, key, frame, after)
    else:
        turn.touched[connection.index] = connection
        _arrived(turn, connection, frame)


def _begins_anew(connection: Connection, frame: Frame) -> bool:
    """Say whether a SYN may end TIME_WAIT (RFC 9293, 3.10.7.4; by its timestamp: RFC 6191)."""
    if frame.flags & (SYN | ACK | RST) != SYN:
        return False
    if connection.timestamps and frame.tsval_at and frame.tsval != connection.ts_recent:
        return diff(frame.tsval, connection.ts_recent) > 0
    return unwrap(frame.seq, connection.rcv_nxt) > connection.rcv_nxt


def _arrived(turn: Turn, connection: Connection, frame: Frame) -> None:
    flags = frame.flags
    position = unwrap(frame.seq, connection.rcv_nxt)
    if not _acceptable(turn, connection, frame, position):
        return
    if flags & RST:
        if position == connection.rcv_nxt:
            turn.header.resets_in += 1
            table.remove(turn.memory, turn.geometry, connection)
        else:
            _challenge(turn, connection)  # RFC 5961, 3.2
        return
    if flags & SYN:
        _challenge(turn, connection)  # RFC 5961, 4.2
        return
    if not flags & ACK:
        return
    connection.heard_at = turn.now
    newer = connection.timestamps and frame.tsval_at and diff(frame.tsval, connection.ts_recent) >= 0
    if newer and position <= connection.last_ack_sent:
        connection.ts_recent = frame.tsval  # RFC 7323, 4.3
    ack = unwrap(frame.ack, connection.snd_una)
    if not _take_ack(turn, connection, frame, position, ack):
        return
    if frame.payload < frame.end:
        _take_payload(turn, connection, frame, position)
    if flags & FIN:
        _note_fin(connection, position + frame.end - frame.payload)
    if connection.rcv_fin == connection.rcv_nxt:
        _take_fin(turn, connection)
    tcp_window.open_edge(connection, connection.rcv_nxt)  # what fits is taken, though it was not offered


def _acceptable(turn: Turn, connection: Connection, frame: Frame, position: int) -> bool:
    """Check timestamp and sequence number (RFC 7323, 5.3; RFC 9293, 3.10.7.4, first step)."""
    reset = frame.flags & RST
    timed = connection.timestamps and frame.tsval_at and not reset
    if timed and diff(frame.tsval, connection.ts_recent) < 0:
        _answer_stale(turn, connection, frame, position)
        return False
    length = frame.end - frame.payload
    length += (frame.flags & FIN != 0) + (frame.flags & SYN != 0)
    nxt = connection.rcv_nxt
    edge = connection.rcv_edge
    if length == 0:
        good = nxt <= position <= edge
    elif edge == nxt:
        # A closed window: its acknowledgement is taken nevertheless, its payload is not (RFC 9293, 3.8.6).
        good = position == nxt
    else:
        good = position < edge and position + length > nxt
    if good:
        return True
    if not reset:
        _answer_stale(turn, connection, frame, position)
    return False


def _answer_stale(turn: Turn, connection: Connection, frame: Frame, position: int) -> None:
    """Say where we are: the other end repeats itself, asks whether we live, or is not who it says."""
    if connection.state == SYN_RECEIVED and frame.flags & SYN and position == connection.irs:
        connection.snd_nxt = connection.iss  # it has not heard our SYN-ACK: once more
        return
    if connection.state == TIME_WAIT and frame.flags & FIN:
        _linger(turn, connection, TIME_WAIT_LENGTH)
    _challenge(turn, connection)


def _challenge(turn: Turn, connection: Connection) -> None:
    """Send an acknowledgement, but not too many of them (RFC 5961, section 7)."""
    turn.start_second()
    if turn.header.challenge_left > 0:
        turn.header.challenge_left -= 1
        turn.header.challenges += 1
        tcp_output.acknowledge(turn, connection)


def _take_ack(turn: Turn, connection: Connection, frame: Frame, position: int, ack: int) -> bool:
    """Take the acknowledgement and the window. False: the segment says nothing more."""
    if connection.state == SYN_RECEIVED:
        if not connection.iss < ack <= connection.snd_max:
            reset_answer(turn, frame)
            return False
        tcp_open.established(turn, connection, connection.iss + 1)
        _set_window(connection, frame, position, ack)
    una = connection.snd_una
    if ack > connection.snd_max or ack < una - connection.snd_wnd_max:
        _challenge(turn, connection)  # RFC 5961, 5.2
        return False
    if frame.sack_at and connection.sack:
        tcp_sack.take_blocks(connection, frame)
    if ack > una:
        _advance(turn, connection, ack)
    elif ack == una and _repeats(connection, frame) and tcp_recovery.repeated(connection):
        turn.header.fast_retransmits += 1
        tcp_output.resend_head(turn, connection)
    tcp_sack.check_resent(connection, turn.now)
    if ack >= una and (
        connection.snd_wl1 < position or (connection.snd_wl1 == position and connection.snd_wl2 <= ack)
    ):
        _set_window(connection, frame, position, ack)
    return connection.state != table.CLOSED


def _repeats(connection: Connection, frame: Frame) -> bool:
    """Say whether an acknowledgement is a duplicate one (RFC 5681, section 2; RFC 6675: SACK says it too)."""
    if frame.payload < frame.end or frame.flags & FIN or connection.snd_max == connection.snd_una:
        return False
    return frame.sack_at != 0 or frame.window << connection.snd_scale == connection.snd_wnd


def _set_window(connection: Connection, frame: Frame, position: int, ack: int) -> None:
    window = frame.window << connection.snd_scale
    connection.snd_wnd = window
    connection.snd_wl1 = position
    connection.snd_wl2 = ack
    if window > connection.snd_wnd_max:
        connection.snd_wnd_max = window
    if connection.timer == table.PERSIST:
        connection.retries = 0  # it answers: it may keep its window closed for ever (RFC 9293, 3.8.6.1)
        if window:
            tcp_recovery.forget_backoff(connection)


def _advance(turn: Turn, connection: Connection, ack: int) -> None:
    """Take an acknowledgement of something new."""
    count = ack - connection.snd_una
    connection.snd_una = ack
    tcp_sack.advance(connection)
    if connection.recover != UNKNOWN:
        connection.resent_at = turn.now  # the next of them was sent after this one
    connection.progress = 1
    if connection.retries and connection.timestamps:
        tcp_recovery.forget_backoff(connection)  # the echo says which copy has arrived: Karn's doubt is gone
    connection.retries = 0
    if connection.timed != UNKNOWN and ack > connection.timed:
        tcp_recovery.sample(connection, turn.now - connection.timed_at)
        connection.timed = UNKNOWN
    if tcp_recovery.acknowledged(connection, count):
        tcp_output.resend_head(turn, connection)
    if connection.snd_nxt < ack:
        connection.snd_nxt = ack
    if connection.snd_max > ack:  # RFC 6298, 5.3
        connection.timer = RETRANSMIT
        connection.deadline = turn.now + connection.rto
        turn.arm(connection.deadline)
    if connection.closing and ack > connection.snd_end:
        _fin_acknowledged(turn, connection)


def _fin_acknowledged(turn: Turn, connection: Connection) -> None:
    if connection.state == FIN_WAIT_1:
        connection.state = FIN_WAIT_2
        _linger(turn, connection, FIN_WAIT_2_LENGTH)
    elif connection.state == CLOSING:
        connection.state = TIME_WAIT
        _linger(turn, connection, TIME_WAIT_LENGTH)
    elif connection.state == LAST_ACK:
        table.remove(turn.memory, turn.geometry, connection)


def _linger(turn: Turn, connection: Connection, length: int) -> None:
    connection.timer = LINGER
    connection.deadline = turn.now + length
    turn.arm(connection.deadline)


def _take_payload(turn: Turn, connection: Connection, frame: Frame, position: int) -> None:
    if connection.state not in (ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2):
        return
    before = connection.rcv_nxt
    tcp_receive.take(turn, connection, position, frame.data[frame.payload : frame.end])
    if connection.rcv_nxt == before or connection.gaps:
        tcp_output.acknowledge(turn, connection)  # at once: the other end counts them (RFC 5681, 4.2)
    else:
        connection.ack_due = 1


def _note_fin(connection: Connection, position: int) -> None:
    """Remember where the stream ends, if the FIN lies in the window."""
    if connection.rcv_fin == UNKNOWN and position <= connection.rcv_edge:
        connection.rcv_fin = position


def _take_fin(turn: Turn, connection: Connection) -> None:
    """Let the other end's stream end (RFC 9293, 3.10.7.4, eighth step)."""
    connection.rcv_nxt += 1
    connection.ack_due = 1
    state = connection.state
    if state == ESTABLISHED:
        connection.state = CLOSE_WAIT
    elif state == FIN_WAIT_1:
        connection.state = CLOSING
    elif state == FIN_WAIT_2:
        connection.state = TIME_WAIT
        _linger(turn, connection, TIME_WAIT_LENGTH)
