"""What a connection sends: data as far as the windows allow, its FIN, acknowledgements, handshakes."""

from colo_compare.guest import stream, tcp_sack
from colo_compare.guest.connection import (
    CLOSED,
    ESTABLISHED,
    NO_TIMER,
    PERSIST,
    RETRANSMIT,
    SYN_RECEIVED,
    SYN_SENT,
    TIME_WAIT,
    UNKNOWN,
    Connection,
)
from colo_compare.guest.tcp_segment import Outlet, own_mss, sack_option, syn_options
from colo_compare.guest.tcp_window import offered, update_due
from colo_compare.guest.turn import Turn
from colo_compare.wire.frame import ACK, FIN, PSH, RST, SYN


def flush(turn: Turn, connection: Connection) -> None:
    """Send what is due at the end of a turn, and see to the timer."""
    state = connection.state
    if state == CLOSED:
        return
    if state < ESTABLISHED:
        if connection.snd_nxt == connection.iss:
            send_syn(turn, connection)
        set_timer(turn, connection)
        return
    sent = False
    if connection.recover != UNKNOWN and connection.sacks:
        _repair(turn, connection)
    if connection.snd_nxt < connection.snd_end + connection.closing:
        sent = _send_new(turn, connection)
    if not sent and (connection.ack_due or update_due(connection)):
        acknowledge(turn, connection)
    if state != TIME_WAIT:
        set_timer(turn, connection)


def _send_new(turn: Turn, connection: Connection) -> bool:
    """Send data from snd_nxt on, and the FIN behind the last of it. False: the windows allow nothing."""
    first = position = connection.snd_nxt
    end = connection.snd_end
    una = connection.snd_una
    mss = connection.mss
    closing = connection.closing
    limit = _limit(connection)
    if position < end and limit <= position:
        return False
    raw = connection.raw
    ring = connection.send_at
    size = connection.send_size
    outlet = _outlet(turn, connection)
    while position < end:
        count = min(mss, end - position, limit - position)
        # A short segment only for the last bytes, or where nothing else would be under way (RFC 9293,
        # 3.8.6.2.1). Nagle's algorithm is off: applications here write whole answers.
        if count <= 0 or (count < mss and count < end - position and position > una):
            break
        payload = stream.get(raw, ring, size, position, count)
        position += count
        flags = ACK
        if position == end:
            flags = ACK | PSH | FIN if closing else ACK | PSH
        outlet.emit(position - count, flags, payload)
    if closing and position == end:
        if first == end:
            outlet.emit(end, ACK | FIN, b"")
        position += 1
    if position == first:
        return False
    _sent(turn, connection, first, position)
    return True


def _limit(connection: Connection) -> int:
    """Give the position up to which the other end's window and the congestion window let data go."""
    una = connection.snd_una
    cwnd = connection.cwnd
    if connection.recover != UNKNOWN and connection.sacks:
        return min(una + connection.snd_wnd, connection.snd_nxt + cwnd - tcp_sack.in_flight(connection))
    if connection.recover == UNKNOWN:
        # Segments have left the network, though nothing new is acknowledged: limited transmit (RFC 3042).
        cwnd += min(connection.repeats, 2) * connection.mss
    return una + min(connection.snd_wnd, cwnd)


def _repair(turn: Turn, connection: Connection) -> None:
    """In recovery: send again what is lost, as far as the congestion window allows (RFC 6675, 5, step C)."""
    while connection.cwnd - tcp_sack.in_flight(connection) >= connection.mss:
        hole = tcp_sack.next_hole(connection)
        if hole is None:
            return
        resend(turn, connection, *hole)


def _sent(turn: Turn, connection: Connection, first: int, position: int) -> None:
    """Note that everything from `first` to `position` was sent."""
    highest = connection.snd_max
    if first < highest:
        connection.timed = UNKNOWN
        turn.header.segments_retransmitted += 1
    elif connection.timed == UNKNOWN:
        connection.timed = first
        connection.timed_at = turn.now
    connection.snd_nxt = position
    if position > highest:
        connection.snd_max = position
    connection.ack_due = 0


def _outlet(turn: Turn, connection: Connection) -> Outlet:
    """Make an outlet, with the current acknowledgement and window in it."""
    outlet = Outlet(turn, connection)
    outlet.offer(offered(connection))
    connection.last_ack_sent = connection.rcv_nxt
    return outlet


def acknowledge(turn: Turn, connection: Connection) -> None:
    """Send an acknowledgement without data, with what has come out of order."""
    connection.ack_due = 0
    _outlet(turn, connection).emit(connection.snd_max, ACK, b"", sack_option(connection))


def resend_head(turn: Turn, connection: Connection) -> None:
    """Send the first unacknowledged segment once more, whatever the windows say (RFC 5681, 3.2)."""
    bounds = connection.sacked()
    resend(turn, connection, connection.snd_una, bounds[0] if bounds else connection.snd_max)


def resend(turn: Turn, connection: Connection, position: int, stop: int) -> None:
    """Send one segment once more, from a position on, up to `stop` at most."""
    turn.header.segments_retransmitted += 1
    connection.timed = UNKNOWN
    end = connection.snd_end
    count = min(connection.mss, end - position, stop - position)
    connection.resent_to = max(connection.resent_to, position + max(count, 1))
    connection.resent_at = turn.now
    flags = ACK | PSH
    if position + count == end and stop > end:
        flags |= FIN
    payload = stream.get(connection.raw, connection.send_at, connection.send_size, position, count)
    _outlet(turn, connection).emit(position, flags, payload)


def probe(turn: Turn, connection: Connection) -> None:
    """Ask for the window with a segment that has been acknowledged already, so that nothing is lost by it.

    RFC 9293, 3.8.6.1, lets one send a byte of data; this is what Linux does, and makes no new state.
    """
    _outlet(turn, connection).emit(connection.snd_una - 1, ACK, b"")


def send_syn(turn: Turn, connection: Connection) -> None:
    """Send a SYN, or in SYN_RECEIVED a SYN-ACK. Its window is never scaled (RFC 7323, 2.2)."""
    outlet = Outlet(turn, connection)
    connection.rcv_edge = connection.rcv_nxt + min(connection.receive_size, 0xFFFF)
    outlet.offer(min(connection.receive_size, 0xFFFF))
    flags = SYN
    if connection.state == SYN_RECEIVED:
        flags |= ACK
        connection.last_ack_sent = connection.rcv_nxt
    outlet.emit(connection.iss, flags, b"", syn_options(connection, own_mss(turn, connection.version)))
    connection.snd_nxt = connection.iss + 1
    connection.ack_due = 0
    if connection.snd_max == connection.iss:
        connection.snd_max = connection.snd_nxt
        connection.timed = connection.iss
        connection.timed_at = turn.now
    else:
        turn.header.segments_retransmitted += 1
        connection.timed = UNKNOWN


def send_reset(turn: Turn, connection: Connection) -> None:
    """Tell the other end that the connection is no more."""
    turn.header.resets_out += 1
    flags = RST if connection.state == SYN_SENT else RST | ACK
    Outlet(turn, connection).emit(connection.snd_max, flags, b"")


def set_timer(turn: Turn, connection: Connection) -> None:
    """Run the timer that what is under way, or what cannot be sent, needs."""
    timer = connection.timer
    if connection.snd_max > connection.snd_una:
        wanted = RETRANSMIT
    elif connection.snd_nxt < connection.snd_end + connection.closing:
        wanted = PERSIST
    elif timer in (RETRANSMIT, PERSIST):
        connection.timer = NO_TIMER
        return
    else:
        return
    if timer != wanted:
        connection.timer = wanted
        connection.deadline = turn.now + connection.rto
        turn.arm(connection.deadline)
