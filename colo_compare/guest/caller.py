"""A client on the guest: sends a number of bytes of the content, ends, and takes what comes back."""

from typing import Final
from zlib import crc32

from colo_compare.guest import content, stream
from colo_compare.guest.connection import Connection
from colo_compare.guest.turn import Turn

NO_CALL: Final = 0
CALLING: Final = 1
ANSWERED: Final = 2  # the other end has ended its answer: call_answer and call_digest are all of it


def run(turn: Turn, connection: Connection) -> None:
    """Send and receive what is possible."""
    waiting = stream.unread(connection)
    if waiting:
        header = turn.header
        header.call_digest = crc32(stream.peek(connection, waiting), header.call_digest)
        header.call_answer += waiting
        stream.consume(connection, waiting)
    while connection.left:
        part = content.piece(connection.offset, min(connection.left, stream.room(connection)))
        if not part:
            return
        stream.write(connection, part)
        connection.offset += len(part)
        connection.left -= len(part)
    if not connection.closing:
        stream.close(connection)
    if stream.ended(connection):
        turn.header.call_state = ANSWERED
