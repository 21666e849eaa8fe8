from pathlib import Path

import pytest

from colo_compare.errors import PortUnavailable
from colo_compare.ports import capture_sink, open_port
from colo_compare.ports.memory import memory_pair
from colo_compare.ports.pcap import read_capture
from colo_compare.ports.tracer import TracerPort
from colo_compare.wire.frame import parse_frame

DATA = [bytes((number,)) * 60 for number in range(4)]
FRAMES = [parse_frame(data, 0, False) for data in DATA]


async def test_both_directions_are_in_the_file(tmp_path: Path) -> None:
    one, other = memory_pair(capacity=3, header_len=12)
    times = iter(range(100, 200))
    traced = TracerPort(one, tmp_path / "a.pcapng", lambda: next(times))
    async with traced, other:
        assert traced.header_len == 12
        assert traced.connected
        await traced.wait_connected()
        assert traced.send_batch(FRAMES, 1) == 4
        assert traced.send_batch(FRAMES) == 0  # not taken, so not traced
        other.send_batch(FRAMES[:2])
        assert await traced.receive_batch() == [bytes(12) + data for data in DATA[:2]]
        other.send_batch([parse_frame(b"\1" * 12 + DATA[3], 12, False)])
        assert traced.drain() == [b"\1" * 12 + DATA[3]]
    assert [(frame.interface, frame.at, frame.data) for frame in read_capture(tmp_path / "a.pcapng")] == [
        *(("sent", 100, data) for data in DATA[1:]),
        *(("received", 102, data) for data in DATA[:2]),
        ("received", 103, DATA[3]),
    ]
    assert traced.untraced == 0


async def test_a_slow_disk_does_not_hold_frames_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_sink, "CAPACITY", 100)
    one, other = memory_pair()
    async with TracerPort(one, tmp_path / "a") as traced, other:
        assert traced.send_batch(FRAMES) == 4
        assert other.drain() == DATA
        assert traced.untraced == 2
    assert [frame.data for frame in read_capture(tmp_path / "a")] == DATA[:2]


async def test_a_full_disk_does_not_hold_frames_up(caplog: pytest.LogCaptureFixture) -> None:
    one, other = memory_pair()
    traced = TracerPort(one, Path("/dev/full"))
    async with traced, other:
        assert traced.send_batch(FRAMES) == 4
        await traced._sink.aclose()
        assert traced.send_batch(FRAMES) == 4
        assert other.drain() == DATA * 2
        assert traced.untraced == 4
    assert "memory:pair: /dev/full cannot be written: No space left on device" in caplog.text


async def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(PortUnavailable, match="none/a cannot be written"):
        await open_port(f"memory:x?trace={tmp_path}/none/a").open()
    with pytest.raises(PortUnavailable, match="cannot be bound"):
        await open_port(f"stream+unix://{tmp_path}/none/a?listen=yes&trace={tmp_path}/trace").open()
    assert list(read_capture(tmp_path / "trace")) == []  # it was closed properly
