"""A guest's control socket, from both ends."""

import signal
import socket
from pathlib import Path

import pytest
import trio

from colo_compare.checkpoint.memory.guest_control import SocketGuest
from colo_compare.checkpoint.memory.guest_protocol import (
    ERROR,
    HEADER_LENGTH,
    LOAD,
    encode,
    parse_header,
    parse_load,
)
from colo_compare.checkpoint.memory.region import PAGE_SIZE, Region
from colo_compare.errors import CheckpointerError
from tests.checkpoint.memory.conftest import PAGES, Start


async def test_its_memory_is_the_guests_own(start: Start) -> None:
    guest = start("a")
    control = await SocketGuest.attach(guest.path, patience=2.0)
    guest.tell("write 3 2 9")
    assert control.region.pages == PAGES
    assert control.region.view[3 * PAGE_SIZE : 5 * PAGE_SIZE].tobytes() == b"\t" * (2 * PAGE_SIZE)
    await control.aclose()


async def test_it_loads_what_it_is_told_and_nothing_else(start: Start) -> None:
    guest = start("a")
    control = await SocketGuest.attach(guest.path, patience=2.0)
    cache = Region.create(control.region.size)
    cache.view[:] = b"c" * cache.size
    await control.lend_cache(cache)
    assert await control.pause() == b"at start"
    control.region.view[20 * PAGE_SIZE : 23 * PAGE_SIZE] = b"x" * (3 * PAGE_SIZE)
    await control.load([(1, 1), (7, 2)], b"another state", [(21, 1)])
    await control.resume()
    loaded = [page for page in range(PAGES) if control.region.view[page * PAGE_SIZE] == ord("c")]
    assert loaded == [1, 7, 8]
    assert control.region.view[20 * PAGE_SIZE : 23 * PAGE_SIZE : PAGE_SIZE].tobytes() == b"x\0x"
    assert await control.pause() == b"another state"
    await control.aclose()
    cache.close()


async def test_a_guest_that_stands_still_runs_on_when_its_controller_goes_away(start: Start) -> None:
    guest = start("a")
    control = await SocketGuest.attach(guest.path, patience=2.0)
    await control.pause()
    await control.aclose()
    assert guest.tell("write 0 1 1") == "done"
    again = await SocketGuest.attach(guest.path, patience=2.0)
    await again.aclose()


async def test_a_second_controller_waits(start: Start) -> None:
    guest = start("a")
    control = await SocketGuest.attach(guest.path, patience=2.0)
    with pytest.raises(CheckpointerError, match="does another checkpointer control it"):
        await SocketGuest.attach(guest.path, patience=0.05)
    await control.aclose()


async def test_loading_without_a_pause_is_refused(start: Start) -> None:
    control = await SocketGuest.attach(start("a").path, patience=2.0)
    with pytest.raises(CheckpointerError, match="message 5 has no meaning while the guest runs"):
        await control.load([], b"")
    await control.pause()
    with pytest.raises(CheckpointerError, match="has no meaning now"):  # no cache was lent
        await control.load([], b"")
    await control.aclose()


async def test_a_guest_answers_a_ping_whether_it_runs_or_stands_still(start: Start) -> None:
    guest = start("a")
    control = await SocketGuest.attach(guest.path, patience=2.0)
    await control.ping()
    await control.pause()
    async with trio.open_nursery() as nursery:  # one question at a time, whoever asks
        for _ in range(5):
            nursery.start_soon(control.ping)
    await control.resume()
    await control.ping()
    await control.aclose()


async def test_a_guest_that_does_not_run_answers_no_ping(start: Start) -> None:
    guest = start("a")
    control = await SocketGuest.attach(guest.path, patience=0.1)
    guest.process.send_signal(signal.SIGSTOP)
    with pytest.raises(CheckpointerError, match="it did not answer within"):
        await control.ping()
    await control.kill()
    await control.aclose()


async def test_a_guest_that_is_killed_is_dead(start: Start) -> None:
    guest = start("a")
    control = await SocketGuest.attach(guest.path, patience=2.0)
    await control.kill()
    await control.wait_gone()
    assert not guest.alive
    with pytest.raises(CheckpointerError, match="is gone, or has closed its control socket"):
        await control.pause()
    await control.aclose()


async def test_a_tracker_that_the_guest_does_not_offer_is_refused(start: Start) -> None:
    control = await SocketGuest.attach(start("a", "plain").path, patience=2.0)
    with pytest.raises(CheckpointerError, match="does not protect its pages"):
        control.track("pagemap", None)
    tracker = control.track("auto", None)
    assert tracker.name == "compare"
    tracker.close()
    await control.aclose()


async def test_no_guest_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointerError, match="start the guest first"):
        await SocketGuest.attach(str(tmp_path / "none"), patience=1.0)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (b"220 mail.example ESMTP\r\n", "no guest's control socket"),
        (encode(ERROR, b"x" * 20), "does not introduce itself as a guest"),
        (encode(ERROR, b"x"), "introduces itself with 1 bytes"),
        (b"COLG\x09" + bytes(11), "has version 9"),
    ],
)
async def test_something_else_behind_the_path_is_told(tmp_path: Path, words: bytes, reason: str) -> None:
    path = str(tmp_path / "other")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def answer() -> None:
            peer, _ = listener.accept()
            peer.sendall(words)
            peer.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, answer)
            with pytest.raises(CheckpointerError, match=reason):
                await SocketGuest.attach(path, patience=2.0)


def test_a_load_that_ends_too_early_is_refused() -> None:
    for body in (b"", b"\x00\x00\x00\x02" + bytes(15)):
        with pytest.raises(CheckpointerError, match="before its table"):
            parse_load(body)
    assert parse_header(encode(LOAD, b"abc")[:HEADER_LENGTH]) == (LOAD, 3)
