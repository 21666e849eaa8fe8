"""The HTTP/1.1 server.

=======================  ================================================================================
GET /bytes/N             the first N bytes of `demo.content`
GET, PUT, DELETE /kv/K   a value of up to `geometry.value_bytes`
GET, POST /counters/K    a counter; POST adds 1 and answers the sum
POST /crc32              the CRC-32 and length of the body (no SHA-256: hashlib keeps its state to itself)
GET /clock               the guest's clock in microseconds
=======================  ================================================================================
"""

from typing import Final
from zlib import crc32

from colo_compare.guest import content, http_request, store, stream
from colo_compare.guest.connection import Connection
from colo_compare.guest.http_request import END, LONGEST_HEAD, BadRequest, Request
from colo_compare.guest.turn import Turn

# Phases
_HEAD: Final = 0  # a head, and with it the value of a PUT, comes in
_DIGEST: Final = 1  # the body of a POST comes in
_BYTES: Final = 2  # content goes out

_ROOM: Final = 512  # for an answer without its body
_PIECE: Final = 1 << 16


def run(turn: Turn, connection: Connection) -> None:
    """Serve what has come, as far as there is room to answer."""
    while not connection.closing:
        phase = connection.phase
        if phase == _HEAD:
            going = _take_head(turn, connection)
        elif phase == _DIGEST:
            going = _take_digest(turn, connection)
        else:
            going = _give_bytes(turn, connection)
        if not going:
            return


def _take_head(turn: Turn, connection: Connection) -> bool:
    """Take a request's head, if all of it is there and the answer has room. False: wait."""
    waiting = stream.unread(connection)
    if not waiting:
        if stream.ended(connection):
            stream.close(connection)
        return False
    if stream.room(connection) < _ROOM:
        return False
    head, found, _ = stream.peek(connection, min(waiting, LONGEST_HEAD)).partition(END)
    if not found:
        if waiting >= LONGEST_HEAD:
            _refuse(turn, connection, "431 Request Header Fields Too Large")
        return _give_up_at_end(connection)
    try:
        request = http_request.parse(head)
        going = _begin(turn, connection, request, len(head) + len(END))
    except BadRequest as error:
        _refuse(turn, connection, str(error))
        return False
    return going


def _begin(turn: Turn, connection: Connection, request: Request, size: int) -> bool:
    """Begin to serve a request whose head has `size` bytes. Raises BadRequest."""
    kind, _, name = request.path[1:].partition("/")
    connection.keep = int(request.keep)
    if kind == "kv" and request.method == "GET":
        return _answer_value(turn, connection, name.encode("latin-1"), size)
    if kind == "kv" and request.method == "PUT":
        return _take_value(turn, connection, request, name.encode("latin-1"), size)
    stream.consume(connection, size)
    if kind == "bytes" and request.method in ("GET", "HEAD") and _is_number(name):
        connection.offset = 0
        connection.left = int(name) if request.method == "GET" else 0
        connection.phase = _BYTES
        _write_head(turn, connection, "200 OK", int(name))
    elif request.path == "/crc32" and request.method == "POST":
        connection.phase = _DIGEST
        connection.left = request.length
        connection.offset = connection.digest = 0
        _continue(connection, request)
    elif request.length:
        raise BadRequest("405 Method Not Allowed")
    elif kind == "kv" and request.method == "DELETE":
        entry = store.find(turn, store.VALUE, name.encode("latin-1"))
        if entry is None:
            _answer(turn, connection, "404 Not Found", b"")
        else:
            store.remove(entry)
            _answer(turn, connection, "204 No Content", b"")
    elif kind == "counters" and name:
        _answer_counter(turn, connection, request.method, name.encode("latin-1"))
    elif request.path == "/clock" and request.method == "GET":
        _answer(turn, connection, "200 OK", b"%d\n" % turn.now)
    else:
        _answer(turn, connection, "404 Not Found", b"")
    return True


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 15


def _continue(connection: Connection, request: Request) -> None:
    if request.expects and request.length:
        stream.write(connection, b"HTTP/1.1 100 Continue\r\n\r\n")


def _take_value(turn: Turn, connection: Connection, request: Request, name: bytes, size: int) -> bool:
    """Store a value when all of it is there: nobody sees half of one. Until then its head waits with it."""
    if request.length > store.longest_value(turn):
        raise BadRequest("413 Content Too Large")
    if not 0 < len(name) <= store.NAME_BYTES:
        raise BadRequest("404 Not Found")
    if stream.unread(connection) < size + request.length:
        if not connection.continued:
            connection.continued = 1
            _continue(connection, request)
        return _give_up_at_end(connection)
    entry = store.make(turn, store.VALUE, name)
    if entry is None:
        raise BadRequest("507 Insufficient Storage")
    stream.consume(connection, size)
    store.set_value(turn, entry, stream.peek(connection, request.length))
    stream.consume(connection, request.length)
    connection.continued = 0
    _answer(turn, connection, "200 OK", b"%d\n" % entry.changes)
    return True


def _take_digest(turn: Turn, connection: Connection) -> bool:
    count = min(stream.unread(connection), connection.left)
    if count:
        connection.digest = crc32(stream.peek(connection, count), connection.digest)
        stream.consume(connection, count)
        connection.left -= count
        connection.offset += count
    if connection.left:
        return _give_up_at_end(connection)
    if stream.room(connection) < _ROOM:
        return False
    connection.phase = _HEAD
    _answer(turn, connection, "200 OK", b"%08x %d\n" % (connection.digest, connection.offset))
    return True


def _give_up_at_end(connection: Connection) -> bool:
    """Close a connection whose client ended in the middle of a request. False: nothing more to do now."""
    if stream.finished(connection) and not connection.closing:
        stream.close(connection)
    return False


def _give_bytes(turn: Turn, connection: Connection) -> bool:
    while connection.left:
        part = content.piece(connection.offset, min(connection.left, stream.room(connection), _PIECE))
        if not part:
            return False
        stream.write(connection, part)
        connection.offset += len(part)
        connection.left -= len(part)
        turn.header.bytes_served += len(part)
    connection.phase = _HEAD
    _end_answer(connection)
    return True


def _answer_value(turn: Turn, connection: Connection, name: bytes, size: int) -> bool:
    """Answer a value. False: it has no room yet, and the request's head stays where it is."""
    entry = store.find(turn, store.VALUE, name)
    if entry is not None and stream.room(connection) < _ROOM + entry.size:
        return False
    stream.consume(connection, size)
    if entry is None:
        _answer(turn, connection, "404 Not Found", b"")
    else:
        _answer(turn, connection, "200 OK", store.value(turn, entry))
    return True


def _answer_counter(turn: Turn, connection: Connection, method: str, name: bytes) -> None:
    if method not in ("GET", "POST"):
        raise BadRequest("405 Method Not Allowed")
    if len(name) > store.NAME_BYTES:
        raise BadRequest("404 Not Found")
    entry = store.find(turn, store.COUNTER, name)
    if method == "POST":
        entry = store.make(turn, store.COUNTER, name)
        if entry is None:
            raise BadRequest("507 Insufficient Storage")
        entry.count += 1
    _answer(turn, connection, "200 OK", b"%d\n" % (entry.count if entry else 0))


def _answer(turn: Turn, connection: Connection, status: str, body: bytes) -> None:
    """Answer a request whose body, if any, has been read."""
    _write_head(turn, connection, status, len(body))
    if body:
        stream.write(connection, body)
        turn.header.bytes_served += len(body)
    _end_answer(connection)


def _write_head(turn: Turn, connection: Connection, status: str, length: int) -> None:
    turn.header.requests += 1
    connection.served += 1
    head = f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n"
    every = turn.noise.random_every
    if every and turn.header.requests % every == 0:
        head += f"X-Random: {turn.noise.token():016x}\r\n"
    if not connection.keep:
        head += "Connection: close\r\n"
    stream.write(connection, head.encode() + b"\r\n")


def _end_answer(connection: Connection) -> None:
    if not connection.keep:
        stream.close(connection)


def _refuse(turn: Turn, connection: Connection, status: str) -> None:
    """Answer what cannot be understood, and end: where the next request would begin is not known."""
    connection.keep = 0
    _answer(turn, connection, status, b"")
