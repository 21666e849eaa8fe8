"""Captures of a running loop, in files and in a stream; read back by tshark where it is installed."""

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from colo_compare.core.sides import CLIENT
from colo_compare.metrics.snapshot import take_snapshot
from colo_compare.operate import captures as captures_module
from colo_compare.operate.captures import Captures, CaptureSettings, make_room, write_capture
from colo_compare.operate.frame_stream import PIECE, _pieces, stream_capture
from colo_compare.operate.frames import FrameRing
from colo_compare.ports.pcap import read_capture
from colo_compare.wire.frame import Frame
from tests.rig import SETTINGS, Rig

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


def settings(directory: Path) -> CaptureSettings:
    return CaptureSettings(directory, 1 << 20, after=0.2, interval=1.0, max_files=3, max_bytes=1 << 20)


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def diverge(rig: Rig, number: int = 0) -> None:
    await rig.send(rig.primary, rig.talk.primary.datagram(b"at 12:30:0%d" % (number % 10)))
    await rig.send(rig.secondary, rig.talk.secondary.datagram(b"at 12:30:0%d" % ((number + 1) % 10)))
    await rig.jump(SETTINGS.datagram_window)


async def wait_for(condition: Callable[[], bool]) -> None:
    """Let the thread that writes come to its end."""
    give_up = time.monotonic() + 5.0
    while not condition():
        assert time.monotonic() < give_up
        await trio.lowlevel.checkpoint()


async def test_each_divergence_has_its_file(
    mock_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    rig = Rig(mock_clock)
    captures = Captures(settings(tmp_path), lambda: 1_795_554_092.0)
    async with rig.running():
        nursery.start_soon(captures.run, rig.loop.frames)
        await rig.settle()
        await rig.both_say(b"the same")
        await diverge(rig)
        assert not captures.outcomes["written"]
        await rig.jump(0.2)
        await wait_for(lambda: captures.outcomes["written"] == 1)
        nursery.cancel_scope.cancel()
    (path,) = files(tmp_path)
    assert path.name == "divergence-20261124T210132Z-1.pcapng"
    assert mode(path) == 0o600
    with read_capture(path) as capture:
        seen = [(frame.interface, frame.comment, frame.data[42:]) for frame in capture]
    marked = "divergence 1 (payload, timestamp) at offset 10 of udp 10.0.0.2:80 - 10.0.0.1:40000"
    assert [one for one in seen if marked in one[1]] == [
        ("primary", f"{seen[3][1].split('; ')[0]}; {marked}", b"at 12:30:00"),
        ("secondary", marked, b"at 12:30:01"),
    ]
    assert seen[0][0] == "primary"
    assert seen[0][1].startswith("released after ")
    assert [one[0] for one in seen[:3]] == ["primary", "secondary", "client"]


async def test_what_comes_together_shares_a_file_and_what_comes_soon_has_none(
    mock_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    rig = Rig(mock_clock)
    captures = Captures(settings(tmp_path))
    async with rig.running():
        nursery.start_soon(captures.run, rig.loop.frames)
        await rig.settle()
        await diverge(rig)
        await diverge(rig)
        await rig.jump(0.2)
        await wait_for(lambda: captures.outcomes["written"] == 1)
        await diverge(rig)
        await rig.jump(0.5)
        assert captures.figures() == {
            "directory": str(tmp_path),
            "written": 1,
            "failed": 0,
            "skipped": 1,
            "failure": "",
        }
        await rig.jump(0.5)
        await diverge(rig)
        await rig.jump(0.2)
        await wait_for(lambda: captures.outcomes["written"] == 2)
        nursery.cancel_scope.cancel()
    assert b"divergence 1, 2" in files(tmp_path)[0].read_bytes()


@contextmanager
def full_disk(directory: Path, size: str) -> Iterator[Path]:
    """A file system of its own that is soon full. Skips where none can be mounted."""
    place = directory / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("no file system can be mounted here: not root, or in a container")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def test_a_full_disk_costs_captures_and_nothing_else(
    mock_clock: MockClock, nursery: trio.Nursery, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with full_disk(tmp_path, "4k") as place:
        rig = Rig(mock_clock)
        captures = Captures(settings(place))
        async with rig.running():
            nursery.start_soon(captures.run, rig.loop.frames)
            await rig.settle()
            await rig.both_say(bytes(1000), bytes(900), bytes(800), bytes(700))
            await diverge(rig)
            await rig.jump(0.2)
            await wait_for(lambda: captures.outcomes["failed"] == 1)
            await rig.jump(1.0)
            await diverge(rig)
            await rig.jump(0.2)
            await wait_for(lambda: captures.outcomes["failed"] == 2)
            assert len(await rig.both_say(b"still served")) == 1
            assert rig.loop.proxy.protected
            assert rig.error is None
            assert take_snapshot(rig.loop).captures == {"written": 0, "failed": 2, "skipped": 0}
            nursery.cancel_scope.cancel()
        assert files(place) == []
    assert caplog.text.count("a capture was not written") == 1
    assert captures.failure == f"{place}: {os.strerror(errno.ENOSPC)}"


async def test_a_directory_that_is_not_there(
    mock_clock: MockClock, nursery: trio.Nursery, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(mock_clock)
    captures = Captures(settings(tmp_path / "no"))
    async with rig.running():
        nursery.start_soon(captures.run, rig.loop.frames)
        await rig.settle()
        await diverge(rig)
        await rig.jump(0.2)
        await wait_for(lambda: captures.outcomes["failed"] == 1)
        await trio.Path(tmp_path / "no").mkdir()
        await rig.jump(1.0)
        await diverge(rig)
        await rig.jump(0.2)
        await wait_for(lambda: captures.outcomes["written"] == 1)
        nursery.cancel_scope.cancel()
    assert (captures.outcomes["failed"], captures.failure) == (1, "")
    assert "No such file or directory; make room, or let this user write there" in caplog.text


def test_the_oldest_files_go(tmp_path: Path) -> None:
    limits = replace(settings(tmp_path), max_bytes=2500)
    for number in range(5):
        (tmp_path / f"divergence-2026112{number}T000000Z-1.pcapng").write_bytes(bytes(1000))
    (tmp_path / "another.pcapng").write_bytes(bytes(5000))
    make_room(limits)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "another.pcapng",
        "divergence-20261123T000000Z-1.pcapng",
        "divergence-20261124T000000Z-1.pcapng",
    ]
    (tmp_path / "divergence-20261125T000000Z-1.pcapng").write_bytes(bytes(9000))
    make_room(limits)
    assert [path.name for path in sorted(tmp_path.glob("div*"))] == ["divergence-20261125T000000Z-1.pcapng"]


async def test_a_flood_is_named_in_part(tmp_path: Path, mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    captures = Captures(settings(tmp_path))
    async with rig.running():
        rig.loop.frames.wanted = captures.want
        for number in range(captures_module._MOST_NAMED + 5):
            await diverge(rig, number)
    assert len(captures._wanted) == captures_module._MOST_NAMED


# In a stream


async def test_a_stream_begins_with_what_is_kept_and_ends_in_time(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    rig = Rig(mock_clock)
    file = b""
    frames = missed = 0
    async with rig.running():
        rig.loop.frames.begin()
        await rig.both_say(b"before")
        mock_clock.rate = 1000.0
        async with aclosing(stream_capture(rig.loop.frames, 1.0, True)) as pieces:
            async for piece in pieces:
                file += piece["pcapng"]
                frames += piece["frames"]
                missed += piece["missed"]
                if not frames:
                    await rig.both_say(b"meanwhile")
        assert rig.loop.frames.ring is not None
    path = tmp_path / "stream.pcapng"
    path.write_bytes(file)
    with read_capture(path) as capture:
        said = [frame.data[42:] for frame in capture]
    assert said == [b"before"] * 3 + [b"meanwhile"] * 3
    assert (frames, missed) == (6, 0)


async def test_a_stream_of_new_frames_only_and_with_missing_ones(mock_clock: MockClock) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        ring = rig.loop.frames.begin()
        await rig.both_say(b"before")
        pieces = stream_capture(rig.loop.frames, None, False)
        assert (await anext(pieces))["frames"] == 0
        await rig.both_say(*[bytes(100) for _ in range(20)])
        mock_clock.rate = 1000.0
        ring._batches.clear()  # as if more had come: nothing is there that could be given
        ring.fallen = ring.last
        missing = await anext(pieces)
        assert (missing["frames"], missing["missed"]) == (0, 60)
        await pieces.aclose()
        rig.loop.frames.end()
        assert rig.loop.frames.ring is None


def test_large_pieces_are_cut(tmp_path: Path) -> None:
    ring = FrameRing(1 << 30)
    for _ in range(10):
        ring.note(CLIENT, False, [Frame(bytes(60_000), 0)])
    pieces = _pieces(ring.since(0))
    assert [len(piece) for piece in pieces] == [5, 5]
    assert PIECE < 5 * 61_000


# As Wireshark reads it


@needs_tshark
async def test_tshark_reads_interfaces_times_directions_and_comments(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    rig = Rig(mock_clock)
    async with rig.running():
        ring = rig.loop.frames.begin()
        await rig.send(rig.client, rig.talk.client.datagram(b"question"))
        await diverge(rig)
        path = tmp_path / "x.pcapng"
        write_capture(path, "about", ring.since(0), ring.comments(0))
        times = [batch.at for batch in ring.since(0) for _ in batch.frames]
    fields = ["frame.interface_name", "frame.time_epoch", "frame.packet_flags_direction", "frame.comment"]
    columns = [word for field in fields for word in ("-e", field)]
    done = await trio.run_process(
        ["tshark", "-r", str(path), "-T", "fields", "-E", "separator=|", *columns],
        capture_stdout=True,
        capture_stderr=True,
    )
    rows = [line.split("|") for line in done.stdout.decode().splitlines()]
    assert {row[0] for row in rows} == {"client", "primary", "secondary"}
    assert [round(float(row[1].split(".")[0])) for row in rows] == [at // 10**9 for at in times]
    assert [row[1].split(".")[1] for row in rows] == [f"{at % 10**9:09}" for at in times]
    assert [row[0] for row in rows if row[3].startswith("divergence 1")] == ["secondary"]
    assert [int(row[2], 16) for row in rows[:3]] == [1, 2, 2]
