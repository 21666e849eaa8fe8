"""The timers of connections."""

from typing import Final

from colo_compare.guest import connection as table
from colo_compare.guest import tcp_output, tcp_recovery
from colo_compare.guest.connection import LINGER, NO_TIMER, PERSIST, Connection
from colo_compare.guest.layout import CONNECTION_BYTES
from colo_compare.guest.tcp_recovery import MAX_RTO
from colo_compare.guest.turn import Turn

RETRIES: Final = 15  # R2 of RFC 9293, 3.8.3: about as Linux, which counts to 15 too
SYN_RETRIES: Final = 5


def handle(turn: Turn) -> None:
    """Do what is due for all connections, and note when the next timer is."""
    words = turn.memory.words
    first = turn.geometry.connections_at >> 3
    step = CONNECTION_BYTES >> 3
    end = first + turn.geometry.connections * step
    # All timers at once: two calls, whatever the number of connections.
    timers = words[first + Connection.timer_index : end : step].tolist()
    deadlines = words[first + Connection.deadline_index : end : step].tolist()
    for index, timer in enumerate(timers):
        if timer == NO_TIMER:
            continue
        if deadlines[index] > turn.now:
            turn.arm(deadlines[index])
        else:
            _expire(turn, Connection(turn.memory, turn.geometry, index))


def _expire(turn: Turn, connection: Connection) -> None:
    timer = connection.timer
    connection.timer = NO_TIMER
    if timer == LINGER:
        table.remove(turn.memory, turn.geometry, connection)
        return
    limit = RETRIES if connection.state >= table.ESTABLISHED else SYN_RETRIES
    if connection.retries >= limit:
        if connection.state >= table.ESTABLISHED:
            tcp_output.send_reset(turn, connection)
        table.remove(turn.memory, turn.geometry, connection)
        return
    if timer == PERSIST:
        connection.rto = min(2 * connection.rto, MAX_RTO)
        tcp_output.probe(turn, connection)
    else:
        turn.header.timeouts += 1
        tcp_recovery.timed_out(connection)
        if connection.state >= table.ESTABLISHED and connection.snd_wnd == 0:
            # The window was closed over data that was under way: flush would send nothing.
            tcp_output.resend_head(turn, connection)
    connection.retries += 1
    turn.touched[connection.index] = connection
