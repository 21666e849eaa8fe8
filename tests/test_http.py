import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import h11
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from colo_compare import http
from colo_compare.errors import ConfigError
from colo_compare.http import (
    MAX_CONNECTIONS,
    PLAIN,
    TURN,
    Request,
    Response,
    Server,
    parse_listen,
    serve_http,
)


async def greet(request: Request) -> Response:
    return Response(200, PLAIN, f"{request.path} {request.accept}".encode())


async def ask_back(request: Request) -> Response:
    return Response(200, PLAIN, request.query.encode(), (("X-Answer", "yes"),))


async def break_down(_: Request) -> Response:
    raise ZeroDivisionError


class Slow:
    """A handler that holds its answers until a test wants them."""

    def __init__(self) -> None:
        self.gate = trio.Event()
        self._count = 0

    async def __call__(self, _: Request) -> Response:
        self._count += 1
        await self.gate.wait()
        return Response(200, PLAIN, b"at last")

    async def wait_for(self, count: int) -> None:
        while self._count < count:
            await wait_all_tasks_blocked(0.001)


ROUTES = {"/hello": greet, "/back": ask_back, "/bug": break_down}


class Client:
    """A client on one TCP connection, and what it gets to see."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.CLIENT)

    async def ask(self, target: str, method: str = "GET", **headers: str) -> tuple[h11.Response, bytes]:
        """Ask on this connection, which must be free, and take the answer."""
        if self.http.our_state is h11.DONE:
            self.http.start_next_cycle()
        sent = self.http.send(
            h11.Request(method=method, target=target, headers=[("Host", "x"), *headers.items()])
        )
        end = self.http.send(h11.EndOfMessage())
        assert sent is not None
        assert end is not None
        await self.stream.send_all(sent + end)
        return await self.answer()

    async def answer(self) -> tuple[h11.Response, bytes]:
        response, body = None, b""
        while True:
            event = self.http.next_event()
            if isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert response is not None
                return response, body
            else:
                assert event is h11.NEED_DATA, event
                self.http.receive_data(await self.stream.receive_some())

    async def is_closed(self) -> bool:
        """Wait for what the server says next: nothing more, or something."""
        try:
            return await self.stream.receive_some() == b""
        except trio.BrokenResourceError:
            return True


class Site:
    """A server, and clients of it."""

    def __init__(self) -> None:
        self.slow = Slow()
        self.server = Server(ROUTES | {"/slow": self.slow})
        (self.listener,) = self.listeners = [trio.SocketListener(_listening())]
        self.clients: list[Client] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Site"]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.server.run, self.listeners, nursery)
            yield self
            nursery.cancel_scope.cancel()
        for client in self.clients:
            await client.stream.aclose()

    async def client(self) -> Client:
        address = self.listener.socket.getsockname()
        client = Client(await trio.open_tcp_stream(*address))
        self.clients.append(client)
        return client


def _listening() -> trio.socket.SocketType:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return trio.socket.from_stdlib_socket(listener)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site().open() as site:
        yield site


@contextmanager
def occupied() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


async def test_get(site: Site) -> None:
    response, body = await (await site.client()).ask("/hello?who=me", Accept="text/plain")
    assert (response.status_code, body) == (200, b"/hello text/plain")
    assert dict(response.headers) == {
        b"content-type": b"text/plain; charset=utf-8",
        b"content-length": b"17",
        b"cache-control": b"no-store",
    }


async def test_a_handler_gets_the_query_and_gives_headers(site: Site) -> None:
    client = await site.client()
    response, body = await client.ask("/back?events=1&samples=2?")
    assert body == b"events=1&samples=2?"
    assert dict(response.headers)[b"x-answer"] == b"yes"
    assert (await client.ask("/back"))[1] == b""


async def test_head_gives_the_length_and_no_body(site: Site) -> None:
    client = await site.client()
    for _ in range(2):
        response, body = await client.ask("/hello", "HEAD")
        assert (response.status_code, body) == (200, b"")
        assert (b"content-length", b"7") in response.headers


async def test_one_connection_carries_many_requests(site: Site) -> None:
    client = await site.client()
    for number in range(3):
        assert (await client.ask("/hello", Accept=str(number)))[1] == b"/hello %d" % number


async def test_a_client_that_wants_to_close_is_closed(site: Site) -> None:
    client = await site.client()
    assert (await client.ask("/hello", Connection="close"))[0].status_code == 200
    assert await client.is_closed()


async def test_a_path_that_is_not_there(site: Site) -> None:
    response, body = await (await site.client()).ask("/hullo")
    assert (response.status_code, body) == (404, b"there are: /hello, /back, /bug, /slow\n")


async def test_a_method_that_changes_something(site: Site) -> None:
    response, _ = await (await site.client()).ask("/hello", "POST")
    assert response.status_code == 405
    assert (b"allow", b"GET, HEAD") in response.headers


async def test_a_body_is_read_and_forgotten(site: Site) -> None:
    client = await site.client()
    await client.stream.send_all(b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
    client.http.send(h11.Request(method="POST", target="/", headers=[("Host", "x")]))
    client.http.send(h11.EndOfMessage())
    assert (await client.answer())[0].status_code == 405
    assert (await client.ask("/hello"))[0].status_code == 200


async def test_a_handler_with_a_bug_costs_one_answer(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    client = await site.client()
    assert (await client.ask("/bug"))[0].status_code == 500
    assert "answering /bug failed" in caplog.text
    assert (await client.ask("/hello"))[0].status_code == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"x" * http.MAX_HEADERS, b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc", b"400"),
    ],
    ids=["no HTTP", "endless headers", "half a body"],
)
async def test_what_is_no_request_is_told_so_and_closed(site: Site, data: bytes, status: bytes) -> None:
    client = await site.client()
    await client.stream.send_all(data)
    await client.stream.send_eof()
    answer = b""
    while chunk := await client.stream.receive_some():
        answer += chunk
    assert answer.startswith(b"HTTP/1.1 " + status)


async def test_a_client_that_says_nothing_more_is_let_go(site: Site) -> None:
    client = await site.client()
    await client.stream.send_eof()
    assert await client.is_closed()


async def test_a_client_that_resets_the_connection_harms_nobody(site: Site) -> None:
    client = await site.client()
    await client.stream.send_all(b"GET /hello HTTP/1.1\r\n")
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await client.stream.aclose()
    assert (await (await site.client()).ask("/hello"))[0].status_code == 200


async def test_a_bug_in_the_conversation_ends_that_conversation_only(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await site.client()
    with monkeypatch.context() as patch:
        patch.setattr(site.server, "_routes", None)
        await client.stream.send_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await client.is_closed()
    assert "an HTTP connection ended in an error" in caplog.text
    assert (await (await site.client()).ask("/hello"))[0].status_code == 200


async def test_the_one_that_is_silent_for_longest_makes_room(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "GRACE", 0.0)
    clients = [await site.client() for _ in range(MAX_CONNECTIONS)]
    await wait_all_tasks_blocked(0.01)
    for client in (clients[0], *clients[2:]):
        await client.ask("/hello")  # in this order; clients[1] has not said anything
    newcomer = await site.client()
    assert (await newcomer.ask("/hello"))[0].status_code == 200
    assert await clients[1].is_closed()
    assert (await clients[0].ask("/hello"))[0].status_code == 200


async def test_nobody_makes_room_who_has_just_come(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "GRACE", 1000.0)
    clients = [await site.client() for _ in range(MAX_CONNECTIONS)]
    await wait_all_tasks_blocked(0.01)
    assert await (await site.client()).is_closed()
    for client in clients:
        assert (await client.ask("/hello"))[0].status_code == 200


async def test_nobody_makes_room_who_is_being_served(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "GRACE", 0.0)
    clients = [await site.client() for _ in range(MAX_CONNECTIONS)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(client.ask, "/slow")
        await site.slow.wait_for(MAX_CONNECTIONS)
        assert await (await site.client()).is_closed()
        site.slow.gate.set()


@asynccontextmanager
async def on_a_test_clock() -> AsyncIterator[trio.SocketStream]:
    """Give the far end of a served connection; the near end's buffer is as small as the kernel allows."""
    near, far = trio.socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Server({"/large": _large}).serve, trio.SocketStream(near))
        async with trio.SocketStream(far) as stream:
            yield stream


async def _large(_: Request) -> Response:
    return Response(200, PLAIN, b"x" * 1_000_000)


async def test_a_client_that_is_too_slow_to_ask_is_closed(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with on_a_test_clock() as stream:
        await stream.send_all(b"GET /large HTTP/1.1\r\nHost:")
        assert await stream.receive_some() == b""
    assert trio.current_time() - began == http.IDLE


async def test_a_client_that_is_too_slow_to_take_the_answer_is_closed(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with on_a_test_clock() as stream:
        await stream.send_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.sleep(http.PATIENCE - 1)
        taken = len(await stream.receive_some())
        await trio.sleep(1 + 2 * TURN)
        while chunk := await stream.receive_some():
            taken += len(chunk)
    assert 0 < taken < 1_000_000
    assert trio.current_time() - began < http.PATIENCE + 1


async def test_all_together_get_one_stretch_of_work_each_turn(autojump_clock: MockClock) -> None:
    server = Server(ROUTES)
    began = trio.current_time()
    turns: list[float] = []

    async def work() -> None:
        await server.turn()
        turns.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(work)
    assert turns == pytest.approx([0, TURN, 2 * TURN, 3 * TURN])


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("[::1]:80", ("::1", 80)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
    ],
)
def test_where_to_listen(text: str, parsed: tuple[str, int]) -> None:
    assert parse_listen(text) == parsed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("9464", "has no port"),
        ("127.0.0.1", "has no port"),
        ("127.0.0.1:", "has no port"),
        ("127.0.0.1:0", "has no port"),
        ("127.0.0.1:65536", "has no port"),
        ("127.0.0.1:²", "has no port"),
        ("localhost:9464", '"localhost" is no address'),
        (":9464", '"" is no address'),
        ("::1:9464", "is written in brackets"),
        ("[127.0.0.1]:9464", "is written in brackets"),
    ],
)
def test_where_nobody_can_listen(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_listen(text)


async def test_an_address_in_use_is_a_mistake_of_the_configuration() -> None:
    with (
        occupied() as port,
        pytest.raises(ConfigError, match=r"\$\.http\.listen: .* cannot be listened on: .*in use"),
    ):
        await serve_http(f"127.0.0.1:{port}", ROUTES)


async def test_serving(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "colo_compare")
    with occupied() as port:
        pass
    async with trio.open_nursery() as nursery:
        assert await nursery.start(serve_http, f"127.0.0.1:{port}", ROUTES) == ("127.0.0.1", port)
        client = Client(await trio.open_tcp_stream("127.0.0.1", port))
        assert (await client.ask("/hello"))[0].status_code == 200
        await client.stream.aclose()
        nursery.cancel_scope.cancel()
    assert f"serving /hello, /back, /bug on http://127.0.0.1:{port}" in caplog.text
