"""What runs on the guest's connections. Their state lies in the connection's record and in the store.

An application is a function that looks at a connection, does what it can do, and returns: it is called at the
end of each turn in which something happened to that connection.
"""

from collections.abc import Callable
from typing import Final

from colo_compare.guest import caller, echo, http_server, stream
from colo_compare.guest.connection import ESTABLISHED, TIME_WAIT, Connection
from colo_compare.guest.ports import ECHO_PORT, HTTP_PORT
from colo_compare.guest.turn import Turn

NONE: Final = 0
HTTP: Final = 1
ECHO: Final = 2
CALLER: Final = 3

_LISTENERS: Final = {HTTP_PORT: HTTP, ECHO_PORT: ECHO}
_APPLICATIONS: Final[dict[int, Callable[[Turn, Connection], None]]] = {
    HTTP: http_server.run,
    ECHO: echo.run,
    CALLER: caller.run,
}


def listener(port: int) -> int:
    """Give the application that listens on a port, NONE if none does."""
    return _LISTENERS.get(port, NONE)


def run(turn: Turn, connection: Connection) -> None:
    """Let a connection's application do what it can."""
    if not ESTABLISHED <= connection.state <= TIME_WAIT:
        return
    _APPLICATIONS[connection.app](turn, connection)
    if connection.closing:
        waiting = stream.unread(connection)
        if waiting:  # nobody will read it
            stream.consume(connection, waiting)
