import json
import socket
import stat
import threading
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from colo_compare import control
from colo_compare.control import MAX_CLIENTS, MAX_REQUEST, MAX_RESPONSE, Method, call, follow, serve_control
from colo_compare.errors import ControlError, ControlRefused


async def echo(params: dict[str, Any]) -> Any:
    return params


async def refuse(_: dict[str, Any]) -> Any:
    raise ControlError("not now")


async def break_down(_: dict[str, Any]) -> Any:
    raise ZeroDivisionError


async def unspeakable(_: dict[str, Any]) -> Any:
    return object()


async def count(params: dict[str, Any]) -> Any:
    """Count up to `to`; for ever without it. Ends badly after `refuse` or `fail`."""
    if params.get("no"):
        raise ControlError("nothing to count")
    return _count(params)


ended: list[str] = []


async def _count(params: dict[str, Any]) -> AsyncGenerator[int, None]:
    number = 0
    try:
        while number < params.get("to", 1 << 30):
            number += 1
            yield number
            if number == params.get("refuse"):
                raise ControlError("that was enough")
            if number == params.get("fail"):
                raise ZeroDivisionError
            if params.get("slowly"):
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()
    finally:
        ended.append("count")


METHODS: dict[str, Method] = {
    "count": count,
    "echo": echo,
    "refuse": refuse,
    "break_down": break_down,
    "unspeakable": unspeakable,
}


@pytest.fixture
async def path(tmp_path: Path, nursery: trio.Nursery) -> Path:
    """Where a daemon answers."""
    path = tmp_path / "control.sock"
    await nursery.start(serve_control, path, 0o660, METHODS)
    return path


async def ask(path: Path, method: str, params: dict[str, Any] | None = None) -> Any:
    return await trio.to_thread.run_sync(partial(call, path, method, params))


async def exchange(path: Path, data: bytes, answers: int = 1) -> list[dict[str, Any]]:
    """Send bytes as they are, and give the first answers."""
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(data)
        received = b""
        while received.count(b"\n") < answers:
            chunk = await stream.receive_some()
            assert chunk, f"closed after {received!r}"
            received += chunk
        return [json.loads(line) for line in received.splitlines()]


async def test_a_call_gives_what_the_method_gives(path: Path) -> None:
    assert await ask(path, "echo", {"side": "secondary"}) == {"side": "secondary"}
    assert await ask(path, "echo") == {}


async def test_a_method_s_own_error_reaches_the_caller(path: Path) -> None:
    with pytest.raises(ControlError, match=r"^not now$"):
        await ask(path, "refuse")


async def test_an_unknown_method_is_answered_with_the_known_ones(path: Path) -> None:
    with pytest.raises(
        ControlError, match='no method "statsu"; known: break_down, count, echo, refuse, unspeakable'
    ):
        await ask(path, "statsu")


@pytest.mark.parametrize("method", ["break_down", "unspeakable"])
async def test_a_broken_method_is_logged_and_the_daemon_goes_on(
    path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ControlError, match=f"method {method} failed: see the daemon's log"):
        await ask(path, method)
    assert [record.getMessage() for record in caplog.records] == [f"control: method {method} failed"]
    assert await ask(path, "echo", {"alive": True}) == {"alive": True}


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"hello", "no request: JSON is malformed"),
        (b"[1]", "no request: Expected `object`, got `array`"),
        (b'{"api":1}', "no request: Object missing required field `method`"),
        (b'{"api":1,"method":"echo","parms":{}}', "no request: Object contains unknown field `parms`"),
        (b'{"api":2,"method":"echo"}', "this daemon speaks api 1, the request says 2"),
        (b"", "no request: "),
    ],
)
async def test_a_bad_line_is_refused_and_the_next_one_served(path: Path, line: bytes, error: str) -> None:
    refused, served = await exchange(path, line + b'\n{"api":1,"method":"echo"}\n', answers=2)
    assert refused["ok"] is False
    assert refused["error"].startswith(error)
    assert served == {"api": 1, "ok": True, "result": {}}


async def test_a_request_may_come_byte_by_byte(path: Path) -> None:
    async with await trio.open_unix_socket(path) as stream:
        for byte in b'{"api":1,"method":"echo","params":{"n":1}}\n':
            await stream.send_all(bytes([byte]))
        assert json.loads(await stream.receive_some()) == {"api": 1, "ok": True, "result": {"n": 1}}


async def test_a_line_without_end_is_refused(path: Path) -> None:
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(b"x" * (MAX_REQUEST + 1))
        answer = json.loads(await stream.receive_some())
        assert answer == {"api": 1, "ok": False, "error": f"a request line has at most {MAX_REQUEST} bytes"}
        assert await stream.receive_some() == b""


# Methods that give many results


async def followed(path: Path, params: dict[str, Any]) -> list[Any]:
    return await trio.to_thread.run_sync(lambda: list(follow(path, "count", params)))


async def test_results_come_one_by_one_and_the_connection_lives_on(path: Path) -> None:
    assert await followed(path, {"to": 3}) == [1, 2, 3]
    lines = await exchange(path, b'{"api":1,"method":"count","params":{"to":1}}\n', answers=2)
    assert lines == [
        {"api": 1, "ok": True, "result": 1, "more": True},
        {"api": 1, "ok": True, "result": None},
    ]
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(b'{"api":1,"method":"count","params":{"to":1}}\n')
        received = b""
        while received.count(b"\n") < 2:
            received += await stream.receive_some()
        await stream.send_all(b'{"api":1,"method":"echo"}\n')
        assert json.loads(await stream.receive_some()) == {"api": 1, "ok": True, "result": {}}


@pytest.mark.parametrize(
    ("params", "before", "error"),
    [
        ({"no": True}, [], "nothing to count"),
        ({"refuse": 2}, [1, 2], "that was enough"),
        ({"fail": 1}, [1], "the method failed: see the daemon's log"),
    ],
)
async def test_what_ends_badly_says_so(
    path: Path, params: dict[str, Any], before: list[int], error: str
) -> None:
    results: list[int] = []

    def run() -> None:
        with pytest.raises(ControlRefused, match=f"^{error}$"):
            results.extend(follow(path, "count", params))  # keeps what comes before the error

    await trio.to_thread.run_sync(run)
    assert results == before


async def test_a_follower_that_goes_away_ends_the_method(path: Path) -> None:
    ended.clear()
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(b'{"api":1,"method":"count","params":{"slowly":true}}\n')
        assert json.loads(await stream.receive_some())["result"] == 1
    with trio.fail_after(5):
        while not ended:
            await trio.lowlevel.checkpoint()


async def test_a_follower_is_told_that_the_daemon_ends(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    results: list[int] = []

    def run() -> None:
        with pytest.raises(ControlError, match="has ended, or was restarted"):
            results.extend(follow(path, "count", {"slowly": True}))

    async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
        await nursery.start(serve_control, path, 0o600, METHODS)
        outer.start_soon(trio.to_thread.run_sync, run)
        with trio.fail_after(5):
            while not results:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert results == [1]


async def test_a_follower_that_takes_nothing_loses_its_place(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    path = tmp_path / "control.sock"
    await nursery.start(serve_control, path, 0o600, METHODS)
    ended.clear()
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(b'{"api":1,"method":"count"}\n')
        await trio.sleep(control.PATIENCE + 1)  # virtual time
        assert ended == ["count"]


async def test_one_client_too_many_is_told_so_and_the_others_stay(path: Path) -> None:
    async with trio.open_nursery() as nursery:
        streams = [await trio.open_unix_socket(path) for _ in range(MAX_CLIENTS)]
        for stream in streams:
            await stream.send_all(b'{"api":1,"method":"echo"}\n')
            assert b'"ok":true' in await stream.receive_some()
        with pytest.raises(
            ControlError, match=f"^{MAX_CLIENTS} clients are connected already: try again later$"
        ):
            await ask(path, "echo")
        for stream in streams:
            nursery.start_soon(stream.aclose)
    await trio.testing.wait_all_tasks_blocked(0.001)
    assert await ask(path, "echo", {"n": 2}) == {"n": 2}


async def test_a_silent_client_loses_its_place(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    path = tmp_path / "control.sock"
    await nursery.start(serve_control, path, 0o600, METHODS)
    async with await trio.open_unix_socket(path) as stream:
        before = trio.current_time()
        assert await stream.receive_some() == b""
        assert trio.current_time() - before == pytest.approx(control.PATIENCE)


async def test_a_client_that_does_not_take_its_answer_harms_nobody(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def endless(_: dict[str, Any]) -> Any:
        return "x" * (8 << 20)

    path = tmp_path / "control.sock"
    await nursery.start(serve_control, path, 0o600, {"endless": endless, "echo": echo})
    async with await trio.open_unix_socket(path) as slow:
        await slow.send_all(b'{"api":1,"method":"endless"}\n')
        assert (await exchange(path, b'{"api":1,"method":"echo"}\n'))[0]["ok"] is True
        await trio.sleep(control.PATIENCE + 1)  # virtual time
        received = 0
        while chunk := await slow.receive_some():
            received += len(chunk)
        assert received < 8 << 20


async def test_a_client_that_goes_away_harms_nobody(path: Path) -> None:
    for _ in range(3):
        stream = await trio.open_unix_socket(path)
        await stream.send_all(b'{"api":1,"method":"echo"}\n{"api":1,"me')
        await trio.aclose_forcefully(stream)
    assert await ask(path, "echo", {"n": 3}) == {"n": 3}


async def test_the_socket_file_has_its_mode_and_goes_with_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "run" / "control.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, path, 0o640, METHODS)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert [entry.name for entry in path.parent.iterdir()] == ["control.sock"]
        nursery.cancel_scope.cancel()
    assert list(path.parent.iterdir()) == []


async def test_a_stale_socket_is_replaced(tmp_path: Path, nursery: trio.Nursery) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    await nursery.start(serve_control, path, 0o600, METHODS)
    assert await ask(path, "echo") == {}


async def test_a_path_may_be_as_long_as_a_socket_s_can_be(tmp_path: Path, nursery: trio.Nursery) -> None:
    path = tmp_path / ((106 - len(str(tmp_path))) * "x")
    await nursery.start(serve_control, path, 0o600, METHODS)
    assert await ask(path, "echo") == {}


async def started(path: Path) -> None:
    """Start a daemon that is expected to fail at once."""
    with trio.fail_after(5):
        await serve_control(path, 0o600, METHODS)


async def test_a_second_daemon_does_not_take_the_socket(path: Path) -> None:
    with pytest.raises(ControlError, match=f"another daemon answers on {path}: stop it, or change"):
        await started(path)
    assert await ask(path, "echo") == {}


async def test_a_daemon_whose_queue_is_full_still_answers(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(path))
        busy.listen(0)
        first.connect(str(path))
        with pytest.raises(ControlError, match="another daemon answers"):
            await started(path)


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with pytest.raises(ControlError, match="is there and is no socket: remove it"):
        await started(path)
    assert path.read_text() == "precious"


async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no" / "such" / "control.sock"
    with pytest.raises(
        ControlError, match=r"cannot be made: No such file or directory; set \$\.control\.socket"
    ):
        await started(path)


async def test_two_daemons_do_not_start_in_the_same_moment(tmp_path: Path) -> None:
    with (
        control._alone_in(tmp_path),
        pytest.raises(ControlError, match="another daemon is making its socket in"),
    ):
        await started(tmp_path / "control.sock")


async def test_a_socket_of_a_successor_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, path, 0o600, METHODS)
        path.unlink()
        path.write_text("somebody else's")
        nursery.cancel_scope.cancel()
    assert path.read_text() == "somebody else's"


async def test_a_socket_that_somebody_removed_is_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, path, 0o600, METHODS)
        path.unlink()
        nursery.cancel_scope.cancel()
    assert list(path.parent.iterdir()) == []


def test_no_daemon_says_so(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with pytest.raises(ControlError, match=f"no daemon answers on {path}: is colo-compare run running?"):
        call(path, "status")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(ControlError, match=f"no daemon answers on {path}"):
        call(path, "status")


def test_a_hung_daemon_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(path))
        hung.listen()
        with pytest.raises(ControlError, match=f"the daemon on {path} did not answer within 0.02 s"):
            call(path, "status", timeout=0.02)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH\n", "is no colo-compare: JSON is malformed"),
        (b'{"ok":true}\n', "is no colo-compare: Object missing required field `api`"),
        (b"x" * (MAX_RESPONSE + 1), f"is longer than {MAX_RESPONSE} bytes"),
    ],
)
def test_what_is_no_daemon_is_told_apart(tmp_path: Path, answer: bytes, error: str) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))
        stranger.listen()
        with pytest.raises(ControlError, match=error):
            _call_and_answer(path, stranger, answer)


def _call_and_answer(path: Path, stranger: socket.socket, answer: bytes) -> None:
    """Answer from a thread, for `call` blocks."""

    def reply() -> None:
        connection, _ = stranger.accept()
        with connection, suppress(BrokenPipeError):  # the caller has heard enough
            connection.recv(4096)
            connection.sendall(answer)

    thread = threading.Thread(target=reply)
    thread.start()
    try:
        call(path, "status")
    finally:
        thread.join()
