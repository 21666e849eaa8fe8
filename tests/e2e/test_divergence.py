"""Guests that differ: nothing that differs reaches the client before a checkpoint stands behind it."""

import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from colo_compare.demo.checkpoint_desk import CheckpointDesk
from colo_compare.demo.client import Connection
from colo_compare.demo.content import digest
from colo_compare.demo.guest import signed
from colo_compare.demo.lab import GUEST4, Lab
from colo_compare.demo.proxy_process import Table
from tests.e2e.verdict import settled

SIZE = 1 << 16
LIMIT = 5.0  # seconds until a divergence must be found


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[CheckpointDesk]:
    with CheckpointDesk(tmp_path / "desk.sock") as desk:
        yield desk


def commits_at_the_desk(desk: CheckpointDesk) -> Table:
    return {"backend": "command", "checkpoint": desk.command(), "copies_state": False}


def test_a_difference_is_held_until_the_checkpoint(pair: Callable[..., Lab], desk: CheckpointDesk) -> None:
    lab = pair(checkpointer=commits_at_the_desk(desk))
    assert desk.next(LIMIT)["reasons"] == ["startup"]
    desk.commit()

    with Connection(lab.client, GUEST4) as connection:
        connection.socket.sendall(b"GET /whoami/%d HTTP/1.1\r\nHost: guest\r\n\r\n" % SIZE)
        request = desk.next(LIMIT)
        # What the client may have is on its way already, as releasing comes before asking for a checkpoint.
        before = connection.socket.recv(SIZE)
        while select.select([connection.socket], [], [], 0.2)[0]:
            before += connection.socket.recv(SIZE)
        assert lab.proxy.status()["held"]["frames"] > 0
        head, blank, body = before.partition(b"\r\n\r\n")
        assert blank
        assert b"".join(signed(SIZE, "A"))[: SIZE // 2].startswith(body)
        assert request["reasons"] == ["payload"]
        assert str(connection.port) in request["flow"]

        lab.guests[1].command(identity="A")
        desk.commit()
        rest = SIZE + len(head) + len(blank) - len(before)
        with connection.socket.makefile("rb") as stream:
            after = stream.read(rest)

    assert body + after == b"".join(signed(SIZE, "A"))
    counters = settled(lab)
    assert {reason: n for reason, n in counters["divergences"].items() if n} == {"payload": 1}
    assert {reason: n for reason, n in counters["requests"].items() if n} == {"startup": 1, "payload": 1}


def test_nothing_reaches_the_client_before_the_first_checkpoint(
    pair: Callable[..., Lab], desk: CheckpointDesk
) -> None:
    lab = pair(checkpointer=commits_at_the_desk(desk))
    desk.next(LIMIT)
    assert not lab.proxy.status()["protected"]
    with pytest.raises(TimeoutError):
        Connection(lab.client, GUEST4, patience=1.5)

    desk.commit()

    with Connection(lab.client, GUEST4) as connection:
        assert connection.download(SIZE).sha256 == digest(SIZE)
    assert lab.proxy.status()["protected"]


def test_a_checkpoint_that_fails_is_asked_for_again(pair: Callable[..., Lab], desk: CheckpointDesk) -> None:
    lab = pair(checkpointer=commits_at_the_desk(desk))
    desk.next(LIMIT)
    desk.refuse()
    assert desk.next(LIMIT)["reasons"] == ["startup"]
    desk.commit()

    with Connection(lab.client, GUEST4) as connection:
        assert connection.download(SIZE).sha256 == digest(SIZE)
    counters = settled(lab)
    assert (counters["checkpoints"]["failed"], counters["checkpoints"]["committed"]) == (1, 1)


def test_observe_counts_what_would_have_diverged(pair: Callable[..., Lab]) -> None:
    lab = pair(proxy={"mode": "observe"})

    with Connection(lab.client, GUEST4) as connection:
        assert connection.request(f"/whoami/{SIZE}").read() == b"".join(signed(SIZE, "A"))

    # The primary does not wait here, so the secondary may say the last bytes after the client has them.
    end = time.monotonic() + LIMIT
    while not (counters := settled(lab))["divergences"]["payload"] and time.monotonic() < end:
        time.sleep(0.01)
    assert counters["divergences"]["payload"] == 1
    assert not any(counters["requests"].values())
