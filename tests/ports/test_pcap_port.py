import threading
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from colo_compare.errors import PortClosed, PortUnavailable
from colo_compare.ports import capture_sink, open_port
from colo_compare.ports.pcap import CaptureWriter, read_capture
from colo_compare.ports.pcap_port import PcapReadPort, PcapWritePort
from colo_compare.ports.port import FramePort
from colo_compare.wire.frame import parse_frame
from tests import frames

DATA = [
    frames.ethernet(bytes((number,)) * 50, 0x88B5, frames.GUEST_MAC, frames.CLIENT_MAC) for number in range(5)
]
FRAMES = [parse_frame(data, 0, False) for data in DATA]


async def expect_silence(port: FramePort) -> None:
    """The port waits, and closing it ends that."""

    async def wait() -> None:
        with pytest.raises(PortClosed):
            await port.receive_batch()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        with trio.move_on_after(0.01) as waited:
            await trio.sleep_forever()
        await port.aclose()
    assert waited.cancelled_caught


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "a.pcapng"
    with CaptureWriter(path, ["x"]) as writer:
        for number in range(300):
            writer.write("x", number, DATA[number % 5])
    return path


async def test_reading(capture: Path) -> None:
    async with open_port(f"pcap:{capture}") as port:
        assert isinstance(port, PcapReadPort)
        assert port.connected
        got = [await port.receive_batch(), await port.receive_batch()]
        assert [len(batch) for batch in got] == [256, 44]
        assert got[0] + got[1] == DATA * 60
        assert port.drain() == []
        assert port.counters.received_frames == 300
        assert port.counters.received_bytes == 300 * 64
        await expect_silence(port)
    assert not port.connected


async def test_what_is_sent_to_a_file_that_is_read_is_dropped(capture: Path) -> None:
    async with open_port(f"pcap:{capture}") as port:
        assert port.send_batch(FRAMES, 2) == 5
        await port.wait_writable()
        assert port.counters.dropped_send == 3


async def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PortUnavailable, match="none: cannot be read: No such file"):
        await open_port(f"pcap:{tmp_path}/none").open()


async def test_a_file_that_is_broken(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"nonsense")
    async with open_port(f"pcap:{tmp_path}/a") as port:
        with pytest.raises(PortClosed, match="is neither a pcap nor a pcapng file"):
            await port.receive_batch()
        with pytest.raises(PortClosed, match="is neither a pcap nor a pcapng file"):
            port.send_batch(FRAMES)


class SlowPort(PcapReadPort):
    """On a disk that takes its time."""

    reading = threading.Event()
    go_on = threading.Event()

    def _read(self) -> list[bytes]:
        self.reading.set()
        self.go_on.wait(10)
        return super()._read()


async def test_a_file_that_is_closed_while_it_is_read(capture: Path) -> None:
    async def receive() -> None:
        with pytest.raises(PortClosed, match="the port was closed"):
            await port.receive_batch()

    async with SlowPort("pcap:x", capture) as port, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.to_thread.run_sync(port.reading.wait)
        await port.aclose()
        port.go_on.set()


@pytest.mark.parametrize("name", ["a.pcap", "a.pcapng"])
async def test_writing(tmp_path: Path, name: str) -> None:
    times = iter(range(100, 200))
    async with PcapWritePort("pcap:x", tmp_path / name, lambda: next(times)) as port:
        assert port.connected
        assert port.send_batch(FRAMES, 1) == 5
        assert port.send_batch([parse_frame(bytes(12) + DATA[0], 12, False)]) == 1
        assert port.drain() == []
        await expect_silence(port)
    assert [(frame.at, frame.data) for frame in read_capture(tmp_path / name)] == [
        *((100, data) for data in DATA[1:]),
        (101, DATA[0]),
    ]
    assert (port.counters.sent_frames, port.counters.sent_bytes) == (5, 5 * 64)


async def test_closed_ports_refuse_everything(tmp_path: Path, capture: Path) -> None:
    for port in (open_port(f"pcap:{tmp_path}/w?mode=write"), open_port(f"pcap:{capture}")):
        for open_first in (False, True):
            if open_first:
                await port.open()
                await port.aclose()
                await port.aclose()
            with pytest.raises(PortClosed):
                port.send_batch(FRAMES)
            with pytest.raises(PortClosed):
                port.drain()
            with pytest.raises(PortClosed):
                await port.receive_batch()
            with pytest.raises(PortClosed):
                await port.wait_writable()


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PortUnavailable, match="none/a cannot be written: No such file"):
        await open_port(f"pcap:{tmp_path}/none/a?mode=write").open()


async def test_a_slow_disk_pushes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_sink, "CAPACITY", 200)
    async with open_port(f"pcap:{tmp_path}/a?mode=write") as port:
        taken = port.send_batch(FRAMES)
        assert taken < 5
        while taken < 5:
            await port.wait_writable()
            taken = port.send_batch(FRAMES, taken)
    assert [frame.data for frame in read_capture(tmp_path / "a")] == DATA


async def test_a_full_disk_closes_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_sink, "CAPACITY", 100)
    async with open_port("pcap:/dev/full?mode=write") as port:
        assert port.send_batch(FRAMES) == 2
        await port.wait_writable()
        await wait_all_tasks_blocked()
        with pytest.raises(PortClosed, match="/dev/full cannot be written: No space left on device"):
            port.send_batch(FRAMES)
        with pytest.raises(PortClosed, match="No space left"):
            await port.wait_writable()
