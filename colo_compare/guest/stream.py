"""The two byte streams of a connection, in their rings: what applications read and write."""

from colo_compare.guest.connection import (
    CLOSE_WAIT,
    ESTABLISHED,
    FIN_WAIT_1,
    LAST_ACK,
    UNKNOWN,
    Connection,
)


def unread(connection: Connection) -> int:
    """Give how many bytes the application may read."""
    return connection.rcv_nxt - connection.rcv_read - _fin(connection)


def _fin(connection: Connection) -> int:
    """Give 1 if the other end's FIN has been taken into rcv_nxt: it is no byte."""
    return 1 if connection.rcv_fin != UNKNOWN and connection.rcv_nxt > connection.rcv_fin else 0


def finished(connection: Connection) -> bool:
    """Say whether the other end will send nothing more."""
    return _fin(connection) == 1


def ended(connection: Connection) -> bool:
    """Say whether the other end will send nothing more, and all is read."""
    return finished(connection) and unread(connection) == 0


def peek(connection: Connection, count: int) -> bytes:
    """Give the next `count` bytes, which must be there, and leave them there."""
    return get(connection.raw, connection.receive_at, connection.receive_size, connection.rcv_read, count)


def consume(connection: Connection, count: int) -> None:
    """Take `count` bytes away."""
    connection.rcv_read += count


def room(connection: Connection) -> int:
    """Give how many bytes the application may write."""
    if connection.closing:
        return 0
    return connection.send_size - (connection.snd_end - connection.snd_una)


def write(connection: Connection, data: bytes) -> None:
    """Append bytes, for which there must be room."""
    put(connection.raw, connection.send_at, connection.send_size, connection.snd_end, data)
    connection.snd_end += len(data)


def close(connection: Connection) -> None:
    """Write no more: a FIN follows what was written (RFC 9293, 3.10.4). What still comes may be read."""
    connection.closing = 1
    if connection.state == ESTABLISHED:
        connection.state = FIN_WAIT_1
    elif connection.state == CLOSE_WAIT:
        connection.state = LAST_ACK


def get(raw: memoryview, ring: int, size: int, position: int, count: int) -> bytes:
    """Give `count` bytes of a ring, from a position of its stream on."""
    start = position % size
    if start + count <= size:
        start += ring
        return bytes(raw[start : start + count])
    first = size - start
    return b"".join((raw[ring + start : ring + size], raw[ring : ring + count - first]))


def put(raw: memoryview, ring: int, size: int, position: int, data: bytes) -> None:
    """Write bytes into a ring, at a position of its stream."""
    start = position % size
    count = len(data)
    if start + count <= size:
        start += ring
        raw[start : start + count] = data
        return
    first = size - start
    raw[ring + start : ring + size] = data[:first]
    raw[ring : ring + count - first] = data[first:]
