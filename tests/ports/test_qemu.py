"""The stream and datagram ports against QEMU itself: a hub without any guest, and a mirror on one port."""

import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
import trio

from colo_compare.ports.dgram import DgramPort
from colo_compare.ports.port import FramePort
from colo_compare.ports.stream import StreamPort
from colo_compare.wire.frame import VNET_HEADER_LEN, parse_frame

QEMU = "qemu-system-x86_64"
SIZES = (60, 1514, 9000, 65535, 69000)
DATA = [bytes((index,)) * size for index, size in enumerate(SIZES)]
FRAMES = [parse_frame(data, 0, False) for data in DATA]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """A hub of two ports, a stream and a datagram one; the stream's frames are mirrored to a chardev."""
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed")
    local, remote = f"{tmp_path}/qemu", f"{tmp_path}/dgram"
    return [
        QEMU, "-machine", "none", "-nodefaults", "-no-user-config", "-display", "none",
        "-netdev", f"stream,id=s,server=off,addr.type=unix,addr.path={tmp_path}/stream",
        "-netdev", f"dgram,id=d,local.type=unix,local.path={local},remote.type=unix,remote.path={remote}",
        "-netdev", "hubport,id=h1,hubid=0,netdev=s",
        "-netdev", "hubport,id=h2,hubid=0,netdev=d",
        "-chardev", f"socket,id=c,path={tmp_path}/mirror,server=on,wait=off",
        "-object", "filter-mirror,id=m,netdev=s,queue=all,outdev=c,vnet_hdr_support=on",
    ]  # fmt: skip


async def collect(port: FramePort, into: list[bytes]) -> None:
    while True:
        into += await port.receive_batch()


async def test_frames_of_all_sizes_pass_through_qemu(command: list[str], tmp_path: Path) -> None:
    mirrored: list[bytes] = []
    async with (
        StreamPort("stream", f"{tmp_path}/stream", listen=True) as stream,
        DgramPort("dgram", f"{tmp_path}/dgram", f"{tmp_path}/qemu") as dgram,
        StreamPort("mirror", f"{tmp_path}/mirror", vnet_hdr=True, reconnect=0.01) as mirror,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(partial(trio.run_process, command, stderr=subprocess.DEVNULL, check=False))
        with trio.fail_after(30):
            await stream.wait_connected()
            await mirror.wait_connected()
            nursery.start_soon(collect, mirror, mirrored)  # unread, it would stop QEMU altogether

            assert stream.send_batch(FRAMES) == len(FRAMES)
            got: list[bytes] = []
            while len(got) < len(FRAMES):
                got += await dgram.receive_batch()
            assert got == DATA

            assert dgram.send_batch(FRAMES) == len(FRAMES)
            got = []
            while len(got) < len(FRAMES):
                got += await stream.receive_batch()
            assert got == DATA

            while len(mirrored) < 2 * len(FRAMES):
                await trio.lowlevel.checkpoint()
        assert mirrored == [bytes(VNET_HEADER_LEN) + data for data in DATA * 2]
        nursery.cancel_scope.cancel()
