"""Round-trip times (RFC 6298), congestion control (RFC 5681) and recovery (RFC 6582, NewReno)."""

from typing import Final

from colo_compare.guest import tcp_sack
from colo_compare.guest.connection import UNKNOWN, Connection

MIN_RTO: Final = 200_000  # microseconds, as Linux; RFC 6298 asks for a second, and allows less (section 2.4)
MAX_RTO: Final = 60_000_000
FIRST_RTO: Final = 1_000_000
_GRANULARITY: Final = 1_000
INITIAL_SEGMENTS: Final = 10  # RFC 6928
REPEATS: Final = 3  # duplicate acknowledgements that mean a loss


def start(connection: Connection) -> None:
    """Begin with the initial window, when the MSS is known."""
    connection.cwnd = INITIAL_SEGMENTS * connection.mss
    connection.ssthresh = 1 << 30
    connection.recover = UNKNOWN
    connection.repeats = 0


def sample(connection: Connection, rtt: int) -> None:
    """Take a round-trip time into account (RFC 6298, section 2)."""
    if connection.srtt == 0:
        connection.srtt = max(rtt, 1)
        connection.rttvar = rtt // 2
    else:
        error = rtt - connection.srtt
        connection.rttvar += (abs(error) - connection.rttvar) // 4
        connection.srtt = max(connection.srtt + error // 8, 1)
    forget_backoff(connection)


def forget_backoff(connection: Connection) -> None:
    """Set the time-out by what is known of round trips, however often it was doubled since."""
    if connection.srtt == 0:
        return
    rto = connection.srtt + max(_GRANULARITY, 4 * connection.rttvar)
    connection.rto = min(max(rto, MIN_RTO), MAX_RTO)


def acknowledged(connection: Connection, count: int) -> bool:
    """Note that `count` new bytes were acknowledged (snd_una has moved). True: send the head once more."""
    mss = connection.mss
    if connection.recover == UNKNOWN:
        connection.repeats = 0
        cwnd = connection.cwnd
        if cwnd < connection.ssthresh:
            # As many as were acknowledged, not one MSS for each ACK (RFC 3465): clients acknowledge rarely.
            cwnd += count
        else:
            cwnd += max(1, mss * count // cwnd)
        connection.cwnd = min(cwnd, 2 * connection.send_size)
        return False
    if connection.snd_una >= connection.recover:
        flight = connection.snd_max - connection.snd_una
        connection.cwnd = min(connection.ssthresh, max(flight, mss) + mss)
        connection.recover = UNKNOWN
        connection.repeats = 0
        return False
    if connection.sacks or connection.snd_una < connection.resent_to:
        return False  # tcp_sack knows what is missing
    # A partial acknowledgement: the next hole begins where it ends (RFC 6582, 3.2, step 3).
    connection.cwnd = max(connection.cwnd - count + mss, mss)
    return True


def repeated(connection: Connection) -> bool:
    """Note a duplicate acknowledgement. True: recovery begins, send the head once more."""
    connection.repeats += 1
    if connection.recover != UNKNOWN:
        if not connection.sacks:  # one segment has left the network (RFC 6582); else in_flight knows
            connection.cwnd = min(connection.cwnd + connection.mss, 2 * connection.send_size)
        return False
    if connection.repeats < REPEATS and not tcp_sack.shows_loss(connection):
        return False
    flight = connection.snd_max - connection.snd_una
    connection.ssthresh = max(flight // 2, 2 * connection.mss)
    connection.cwnd = connection.ssthresh
    if not connection.sacks:
        connection.cwnd += REPEATS * connection.mss
    connection.recover = connection.snd_max
    connection.resent_to = connection.snd_una
    connection.timed = UNKNOWN
    return True


def timed_out(connection: Connection) -> None:
    """Begin anew from what is acknowledged, slowly (RFC 5681, 3.1; RFC 6298, 5.5; Karn)."""
    flight = connection.snd_max - connection.snd_una
    if connection.retries == 0:
        connection.ssthresh = max(flight // 2, 2 * connection.mss)
    connection.cwnd = connection.mss
    connection.recover = UNKNOWN
    connection.repeats = 0
    connection.timed = UNKNOWN
    connection.snd_nxt = connection.snd_una
    connection.set_sacked([])  # the other end may have thrown it away (RFC 2018, section 8)
    connection.rto = min(2 * connection.rto, MAX_RTO)
