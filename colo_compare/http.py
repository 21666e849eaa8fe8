"""A small HTTP/1.1 server on the loop itself, made so that no frame waits for it.

It serves fixed paths to GET and HEAD. However many ask, however slowly or often, all of them together get one
stretch of work on the loop each TURN, and a stretch is a request's headers or an answer: some tenths of a
millisecond. A connection costs nothing while it says nothing.

There is neither TLS nor a password: bind it to loopback, or to a network of its own.
"""

import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import h11
import trio

from colo_compare.errors import ConfigError

MAX_CONNECTIONS: Final = 16
GRACE: Final = 1.0  # seconds for which a client that is waited for keeps its place
MAX_HEADERS: Final = 8192  # bytes of a request's line and headers
TURN: Final = 0.005  # seconds between two stretches of work
IDLE: Final = 75.0  # seconds for the next request to come, complete: Prometheus scrapes once a minute
PATIENCE: Final = 10.0  # seconds to take an answer

PLAIN: Final = "text/plain; charset=utf-8"

logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What a handler may want to know."""

    path: str  # without the query
    accept: str  # the header of that name, "" without one
    query: str = ""  # what follows the path's question mark


@dataclass(frozen=True)
class Response:
    """What a handler gives."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()  # more of them


Handler = Callable[[Request], Awaitable[Response]]


def parse_listen(text: str) -> tuple[str, int]:
    """Read ``ADDRESS:PORT``, an IPv6 address in brackets. Raises ValueError with the mistake as its text."""
    address, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f'"{text}" has no port: write ADDRESS:PORT, like "127.0.0.1:9464", or "off"')
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    try:
        ip = ipaddress.ip_address(bare)
    except ValueError:
        raise ValueError(
            f'"{address}" is no address: write the IPv4 address to listen on, or an IPv6 address in brackets'
        ) from None
    if (ip.version == 6) != (bare is not address):
        raise ValueError(f'"{text}": an IPv6 address, and no other, is written in brackets')
    return bare, int(port)


async def serve_http(
    listen: str,
    routes: Mapping[str, Handler],
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve these paths until cancelled. Raises ConfigError when the address cannot be listened on."""
    host, port = parse_listen(listen)
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise ConfigError(
            "$.http.listen",
            f"{listen} cannot be listened on: {error.strerror or error}; "
            'choose an address of this machine and a free port, or "off"',
        ) from None
    logger.info("serving %s on http://%s", ", ".join(routes), listen)
    async with trio.open_nursery() as nursery:
        task_status.started((host, port))
        await Server(routes).run(listeners, nursery)


class Server:
    """All connections, and whose turn it is."""

    def __init__(self, routes: Mapping[str, Handler]) -> None:
        self._routes = routes
        self._turns = trio.Lock()
        self._next_turn = 0.0
        self._connections: dict[_Connection, trio.CancelScope] = {}
        # Those whose client is to ask, or to take its answer, and since when: the longest first.
        self._waiting: dict[_Connection, float] = {}

    async def run(self, listeners: list[trio.SocketListener], nursery: trio.Nursery) -> None:
        """Serve until cancelled, each connection in a task of the nursery."""
        paced = [_Paced(listener, self.turn) for listener in listeners]
        await trio.serve_listeners(self.serve, paced, handler_nursery=nursery)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end."""
        connection = _Connection(stream, self.turn)
        if len(self._connections) >= MAX_CONNECTIONS and not self._make_room():
            await trio.aclose_forcefully(stream)
            return
        try:
            with trio.CancelScope() as scope:
                self._connections[connection] = scope
                await self._converse(connection)
        except Exception:  # a bug, but none that a frame should suffer from
            logger.exception("an HTTP connection ended in an error")
        finally:
            self._connections.pop(connection, None)
            await trio.aclose_forcefully(stream)

    def _make_room(self) -> bool:
        """Close the connection whose client has been silent, or slow, for longest: it may never end itself.

        Says whether there was one. A client that has just come is not driven out by the next one: of a crowd
        that comes again and again, nobody would ever be served.
        """
        for connection, since in self._waiting.items():
            if trio.current_time() - since < GRACE:
                return False
            del self._waiting[connection]
            self._connections.pop(connection).cancel()
            return True
        return False

    async def turn(self) -> None:
        """Wait until this task may work on the loop."""
        async with self._turns:
            await trio.sleep_until(self._next_turn)
            self._next_turn = trio.current_time() + TURN

    async def _converse(self, connection: "_Connection") -> None:
        # A client that goes away, says nothing or does not take its answer loses the connection, no more.
        with suppress(trio.BrokenResourceError, trio.TooSlowError, OSError):
            while True:
                with self._waits(connection):
                    request = await connection.receive()
                if request is None:
                    return
                response = await self._answer(request)
                with self._waits(connection):
                    await connection.send(response)

    @contextmanager
    def _waits(self, connection: "_Connection") -> Iterator[None]:
        self._waiting[connection] = trio.current_time()
        try:
            yield
        finally:
            self._waiting.pop(connection, None)

    async def _answer(self, request: h11.Request) -> Response:
        if request.method not in {b"GET", b"HEAD"}:
            return Response(405, PLAIN, b"only GET and HEAD are served here\n")
        path, _, query = request.target.decode("latin-1").partition("?")
        handler = self._routes.get(path)
        if handler is None:
            return Response(404, PLAIN, f"there are: {', '.join(self._routes)}\n".encode())
        accept = ",".join(value.decode("latin-1") for name, value in request.headers if name == b"accept")
        try:
            return await handler(Request(path, accept, query))
        except Exception:
            logger.exception("answering %s failed", path)
            return Response(500, PLAIN, b"an internal error: the log has it\n")


class _Paced(trio.abc.Listener[trio.SocketStream]):
    """A listener that takes its turn: to accept connections is work, too."""

    def __init__(self, listener: trio.SocketListener, turn: Callable[[], Awaitable[None]]) -> None:
        self._listener = listener
        self._turn = turn

    async def accept(self) -> trio.SocketStream:
        """Wait for a connection."""
        await trio.lowlevel.wait_readable(self._listener.socket)
        await self._turn()
        return await self._listener.accept()

    async def aclose(self) -> None:
        """Listen no more."""
        await self._listener.aclose()


class _Connection:
    """One connection: requests in, answers out."""

    def __init__(self, stream: trio.SocketStream, turn: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._turn = turn
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADERS)
        self._head = False  # whether the request wants no body

    async def receive(self) -> h11.Request | None:
        """Wait for a request, complete with its body, which is of no interest. None: there will be none."""
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        elif self._http.our_state is not h11.IDLE:
            return None  # one side has said that this answer was the last
        try:
            with trio.fail_after(IDLE):
                request = await self._next_event()
                event = request
                while isinstance(event, h11.Request | h11.Data):
                    event = await self._next_event()
        except h11.RemoteProtocolError as error:
            self._head = False
            await self.send(Response(error.error_status_hint, PLAIN, f"{error}\n".encode()))
            return None
        if not isinstance(request, h11.Request):
            return None  # it has closed the connection
        self._head = request.method == b"HEAD"
        return request

    async def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            # Woken up by the kernel, a task does no more than to stand in line.
            await trio.lowlevel.wait_readable(self._stream.socket)
            await self._turn()
            self._http.receive_data(await self._stream.receive_some(MAX_HEADERS))
        return event

    async def send(self, response: Response) -> None:
        """Send an answer."""
        await self._turn()
        headers = [
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            ("Cache-Control", "no-store"),
            *response.headers,
        ]
        if response.status == 405:
            headers.append(("Allow", "GET, HEAD"))
        out = self._http.send(h11.Response(status_code=response.status, headers=headers)) or b""
        if not self._head:
            out += self._http.send(h11.Data(data=response.body)) or b""
        out += self._http.send(h11.EndOfMessage()) or b""
        with trio.fail_after(PATIENCE):
            await self._stream.send_all(out)
