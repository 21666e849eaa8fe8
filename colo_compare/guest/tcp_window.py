"""The window that the guest offers (RFC 9293, 3.8.6; RFC 7323, section 2)."""

from colo_compare.guest.connection import Connection


def scale_for(size: int) -> int:
    """Give the smallest window scale with which a buffer of this size can be offered whole."""
    return max(0, (size >> 16).bit_length())


def open_edge(connection: Connection, edge: int) -> None:
    """Move the right edge of the window: it never goes back (RFC 9293, 3.8.6: shrinking is discouraged)."""
    if edge > connection.rcv_edge:
        connection.rcv_edge = edge


def offered(connection: Connection) -> int:
    """Give the window field of a segment, and take note of what it offers.

    Bytes of a window that a scale rounds up may not fit: they are cut off and come again.
    """
    free_to = connection.rcv_read + connection.receive_size
    if _worth_telling(connection, free_to):
        open_edge(connection, free_to)
    scale = max(connection.rcv_scale, 0)
    window = -(-(connection.rcv_edge - connection.rcv_nxt) >> scale)
    return min(max(window, 0), 0xFFFF)


def update_due(connection: Connection) -> bool:
    """Say whether the application has read so much that the other end must be told.

    While it may send another 32 KiB, an acknowledgement will tell it soon enough.
    """
    size = connection.receive_size
    if connection.rcv_edge - connection.rcv_nxt >= min(size, 0xFFFF) // 2:
        return False
    return _worth_telling(connection, connection.rcv_read + size)


def _worth_telling(connection: Connection, free_to: int) -> bool:
    """Avoid silly windows: open it by a full segment or half the buffer at least (RFC 9293, 3.8.6.2.2)."""
    return free_to - connection.rcv_edge >= min(connection.receive_size // 2, 2 * connection.mss)
