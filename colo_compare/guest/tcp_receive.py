"""Payload that arrives, in order or not (RFC 9293, 3.10.7.4, seventh step)."""

from colo_compare.guest import runs, stream
from colo_compare.guest.connection import Connection
from colo_compare.guest.turn import Turn


def take(turn: Turn, connection: Connection, position: int, payload: bytes) -> None:
    """Put payload into the receive buffer, as far as it lies in the window and is new."""
    end = position + len(payload)
    first = max(position, connection.rcv_nxt)
    last = min(end, connection.rcv_read + connection.receive_size)
    if first >= last:
        return
    if first > position or last < end:
        payload = payload[first - position : last - position]
    if first == connection.rcv_nxt:
        _write(connection, first, payload)
        connection.rcv_nxt = last
        if connection.gaps:
            _close_gaps(connection)
        return
    turn.header.out_of_order += 1
    bounds = connection.runs()
    if runs.insert(bounds, first, last):
        _write(connection, first, payload)
        connection.set_runs(bounds)
        connection.latest_run = next(
            bounds[at] for at in range(0, len(bounds), 2) if bounds[at] <= first < bounds[at + 1]
        )


def _write(connection: Connection, position: int, payload: bytes) -> None:
    stream.put(connection.raw, connection.receive_at, connection.receive_size, position, payload)


def _close_gaps(connection: Connection) -> None:
    """Take over runs that rcv_nxt has reached."""
    bounds = connection.runs()
    while bounds and bounds[0] <= connection.rcv_nxt:
        connection.rcv_nxt = max(connection.rcv_nxt, bounds[1])
        del bounds[:2]
    connection.set_runs(bounds)
