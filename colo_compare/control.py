r"""The control API: one JSON request line, one JSON response line, over a unix socket.

::

    {"api": 1, "method": "status", "params": {}}
    {"api": 1, "ok": true, "result": {...}}
    {"api": 1, "ok": false, "error": "no method \"statsu\"; known: promote, status"}

A method that gives more and more (`events`, `capture`) answers with many lines that say ``"more": true``, and
ends with one that does not. Whatever the client sends meanwhile, and its going away, ends it earlier.

A connection may carry any number of requests, one after the other. Who may connect is decided by the mode of
the socket file alone. Nothing that a client does, or leaves undone, holds up the daemon: lines, clients and
waiting are all bounded. What each method takes and gives: docs/control.md.
"""

import errno
import fcntl
import logging
import math
import os
import socket
import stat
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from colo_compare.errors import ColoCompareError, ControlError, ControlRefused

API: Final = 1
MAX_REQUEST: Final = 65536  # bytes of one request line
MAX_RESPONSE: Final = 16 << 20  # bytes of one response line: a status with many flows is long
MAX_CLIENTS: Final = 32
PATIENCE: Final = 30.0  # seconds for a client to say something, or to take its answer

# Takes the params; gives what JSON can carry, or a generator of such values.
Method = Callable[[dict[str, Any]], Awaitable[Any]]

_logger: Final = logging.getLogger(__name__)


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    api: int
    method: str
    params: dict[str, Any] = {}


class _Response(msgspec.Struct):
    api: int
    ok: bool
    result: Any = None
    error: str = ""
    more: bool = False


async def serve_control(
    path: Path,
    mode: int,
    methods: Mapping[str, Method],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on a unix socket until cancelled; then remove the socket file.

    `mode` is that of the socket file. Each method takes the request's params and gives something that JSON
    can carry; a ColoCompareError of its own becomes the answer's error. Raises ControlError when the socket
    cannot be made, or when another daemon answers on it.
    """
    async with _listening(path, mode) as listener, trio.open_nursery() as nursery:
        server = _Server(methods)
        task_status.started()
        await trio.serve_listeners(server.serve, [listener], handler_nursery=nursery)


def call(path: Path, method: str, params: Mapping[str, Any] | None = None, *, timeout: float = 10.0) -> Any:
    """Ask a running daemon, and give the result of the method.

    Raises ControlError when no daemon answers within `timeout` seconds, and ControlRefused when it says no.
    """
    with _asking(path, timeout) as connection:
        deadline = time.monotonic() + timeout
        _ask(connection, timeout, path, method, params)
        received = bytearray()
        return _understand(path, _receive_line(connection, path, received, deadline)).result


def follow(
    path: Path, method: str, params: Mapping[str, Any] | None = None, *, timeout: float = 10.0
) -> Iterator[Any]:
    """Ask a running daemon for a method that gives many results, and give each as it comes.

    `timeout` is for the connection alone: between two results any time may pass. Raises as `call` does, also
    when the daemon ends.
    """
    with _asking(path, timeout) as connection:
        _ask(connection, timeout, path, method, params)
        received = bytearray()
        more = True
        gone = "closed the connection without an answer"
        while more:
            response = _understand(path, _receive_line(connection, path, received, math.inf, gone))
            more = response.more
            gone = "has ended, or was restarted"
            if more:
                yield response.result


@contextmanager
def _asking(path: Path, timeout: float) -> Iterator[socket.socket]:
    """Give a socket; tell of what goes wrong with it as ControlError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            yield connection
    except TimeoutError:
        raise ControlError(f"the daemon on {path} did not answer within {timeout:g} s") from None
    except PermissionError:
        raise ControlError(
            f"no permission to talk to the daemon on {path}: run this as its user, or widen $.control.mode"
        ) from None
    except OSError as error:
        raise ControlError(
            f"no daemon answers on {path}: is colo-compare run running? ({error.strerror or error})"
        ) from None


def _ask(
    connection: socket.socket, timeout: float, path: Path, method: str, params: Mapping[str, Any] | None
) -> None:
    connection.settimeout(timeout)
    connection.connect(str(path))
    with suppress(BrokenPipeError):  # refused before it was heard: the answer says why
        connection.sendall(msgspec.json.encode(_Request(API, method, dict(params or {}))) + b"\n")


def _understand(path: Path, line: bytes) -> _Response:
    """Read a response line. Raises ControlRefused when it says no."""
    try:
        response = msgspec.json.decode(line, type=_Response)
    except msgspec.MsgspecError as error:
        raise ControlError(f"what answers on {path} is no colo-compare: {error}") from None
    if not response.ok:
        raise ControlRefused(response.error)
    return response


def _receive_line(
    connection: socket.socket,
    path: Path,
    received: bytearray,
    deadline: float,
    gone: str = "closed the connection without an answer",
) -> bytes:
    """Take a line off what was received; more is received until `deadline`, a time of time.monotonic."""
    searched = 0
    while (end := received.find(b"\n", searched)) < 0:
        searched = len(received)
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(None if math.isinf(left) else left)
        chunk = connection.recv(65536)
        if not chunk:
            raise ControlError(f"the daemon on {path} {gone}")
        received += chunk
        if len(received) > MAX_RESPONSE:
            raise ControlError(f"the answer on {path} is longer than {MAX_RESPONSE} bytes")
    line = bytes(received[: end + 1])
    del received[: end + 1]
    return line


class _Server:
    """All connections of one socket."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods
        self._clients = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end."""
        self._clients += 1
        try:
            # A client that goes away, says nothing or does not take its answer loses the connection, no more.
            with suppress(trio.BrokenResourceError, trio.TooSlowError):
                await self._converse(stream)
        finally:
            self._clients -= 1
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: trio.SocketStream) -> None:
        if self._clients > MAX_CLIENTS:
            await _send(stream, _refusal(f"{MAX_CLIENTS} clients are connected already: try again later"))
            return
        received = bytearray()
        while True:
            with trio.fail_after(PATIENCE):
                line = await _next_line(stream, received)
            if line is None:
                return
            if len(line) > MAX_REQUEST:
                await _send(stream, _refusal(f"a request line has at most {MAX_REQUEST} bytes"))
                return
            answer = await self._answer(line)
            if isinstance(answer, bytes):
                await _send(stream, answer)
            elif not await self._stream(stream, answer):
                return

    async def _answer(self, line: bytes) -> bytes | AsyncGenerator[Any, None]:
        try:
            request = msgspec.json.decode(line, type=_Request)
        except msgspec.MsgspecError as error:
            return _refusal(f"no request: {error}")
        if request.api != API:
            return _refusal(f"this daemon speaks api {API}, the request says {request.api}")
        method = self._methods.get(request.method)
        if method is None:
            return _refusal(f'no method "{request.method}"; known: {", ".join(sorted(self._methods))}')
        try:
            result = await method(request.params)
            if isinstance(result, AsyncGenerator):
                return result
            return _encode({"api": API, "ok": True, "result": result})
        except ColoCompareError as error:
            return _refusal(str(error))
        except Exception:  # a mistake in one method must not stop the proxy
            _logger.exception("control: method %s failed", request.method)
            return _refusal(f"method {request.method} failed: see the daemon's log")

    async def _stream(self, stream: trio.SocketStream, results: AsyncGenerator[Any, None]) -> bool:
        """Send the results until they, or the client, end; give whether it was they."""
        complete = False
        async with trio.open_nursery() as nursery, aclosing(results):
            nursery.start_soon(_wait_for_end, stream, nursery.cancel_scope)
            with suppress(trio.BrokenResourceError, trio.TooSlowError):
                await self._send_all(stream, results)
                complete = True
            nursery.cancel_scope.cancel()
        return complete

    async def _send_all(self, stream: trio.SocketStream, results: AsyncGenerator[Any, None]) -> None:
        try:
            async for result in results:
                await _send(stream, _encode({"api": API, "ok": True, "result": result, "more": True}))
        except ColoCompareError as error:
            last = _refusal(str(error))
        except (trio.BrokenResourceError, trio.TooSlowError):
            raise
        except Exception:  # a mistake in one method must not stop the proxy
            _logger.exception("control: a method failed while it was followed")
            last = _refusal("the method failed: see the daemon's log")
        else:
            last = _encode({"api": API, "ok": True, "result": None})
        await _send(stream, last)


async def _wait_for_end(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError):
        await stream.receive_some(1)
    scope.cancel()


async def _next_line(stream: trio.SocketStream, received: bytearray) -> bytes | None:
    """Take a line off what was received; more than MAX_REQUEST bytes if it is longer, None at the end."""
    while (end := received.find(b"\n")) < 0:
        if len(received) > MAX_REQUEST:
            return bytes(received)
        chunk = await stream.receive_some(MAX_REQUEST)
        if not chunk:
            return None
        received += chunk
    line = bytes(received[:end])
    del received[: end + 1]
    return line


async def _send(stream: trio.SocketStream, line: bytes) -> None:
    with trio.fail_after(PATIENCE):
        await stream.send_all(line)


def _encode(response: dict[str, Any]) -> bytes:
    return msgspec.json.encode(response) + b"\n"


def _refusal(error: str) -> bytes:
    return _encode({"api": API, "ok": False, "error": error})


@asynccontextmanager
async def _listening(path: Path, mode: int) -> AsyncIterator[trio.SocketListener]:
    """Make the socket file, and remove it at the end if it is still ours."""
    # It is bound under another name and renamed: nobody ever sees it with another mode. (A umask for the
    # moment would be the whole process's.) The other name is short, as a socket's path must be.
    unborn = path.with_name(f".{os.getpid()}")
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            with _alone_in(path.parent):
                _refuse_occupied(path)
                unborn.unlink(missing_ok=True)
                await listener.bind(str(unborn))
                try:
                    unborn.chmod(mode)
                    listener.listen(MAX_CLIENTS)
                    unborn.rename(path)
                except OSError:
                    unborn.unlink()
                    raise
        except BlockingIOError:
            raise ControlError(f"another daemon is making its socket in {path.parent}: try again") from None
        except OSError as error:
            raise ControlError(
                f"the control socket {path} cannot be made: {error.strerror or error}; "
                "set $.control.socket to a place where this user may write"
            ) from None
        identity = _identity(path)
        try:
            yield trio.SocketListener(listener)
        finally:
            _remove(path, identity)


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Keep two daemons from replacing each other's socket in the same moment."""
    directory.mkdir(mode=0o755, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _refuse_occupied(path: Path) -> None:
    """Raise ControlError when a daemon listens there, or when it is no socket. A stale socket may go."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ControlError(f"{path} is there and is no socket: remove it, or change $.control.socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        result = probe.connect_ex(str(path))
    # EAGAIN: its queue is full, so somebody is there.
    if result in {0, errno.EAGAIN}:
        raise ControlError(f"another daemon answers on {path}: stop it, or change $.control.socket")


def _remove(path: Path, identity: tuple[int, int] | None) -> None:
    if _identity(path) == identity:
        path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
