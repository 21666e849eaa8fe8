"""The TCP echo."""

from colo_compare.guest import stream
from colo_compare.guest.connection import Connection
from colo_compare.guest.turn import Turn


def run(turn: Turn, connection: Connection) -> None:
    """Send back what came, as far as there is room."""
    count = min(stream.unread(connection), stream.room(connection))
    if count > 0:
        stream.write(connection, stream.peek(connection, count))
        stream.consume(connection, count)
        turn.header.bytes_served += count
    if stream.ended(connection) and not connection.closing:
        stream.close(connection)
