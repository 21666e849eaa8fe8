"""A guest that is moved to another process under a running download, over its control socket."""

import os
import signal
import subprocess
from collections.abc import Callable

import pytest
import trio

from colo_compare.checkpoint.memory.guest_control import SocketGuest
from colo_compare.checkpoint.memory.region import Region
from colo_compare.demo.content import digest
from colo_compare.demo.lab import GUEST4
from colo_compare.errors import CheckpointerError
from tests.guest.conftest import LinuxLab

pytestmark = pytest.mark.e2e
SIZE = 8 << 20


async def wait_for_exit(process: "subprocess.Popen[bytes]") -> int:
    return await trio.to_thread.run_sync(process.wait)


async def served(lab: LinuxLab) -> int:
    status = await trio.to_thread.run_sync(lambda: lab.command(status=True))
    count: int = status["bytes_served"]
    return count


async def test_a_download_goes_on_in_another_process(linux: Callable[..., LinuxLab]) -> None:
    lab = linux()
    download = lab.client.start(
        ["sh", "-c", f"curl -sm 50 http://{GUEST4}/bytes/{SIZE} --limit-rate 8M | sha256sum"],
        stdout=subprocess.PIPE,
    )
    old = await SocketGuest.attach(str(lab.control), patience=10)
    while await served(lab) < SIZE // 4:
        assert download.poll() is None, "the download has ended"
        await trio.sleep(0.01)
    state = await old.pause()
    cache = Region.create(old.region.size)
    cache.view[:] = old.region.view
    await old.kill()
    assert await wait_for_exit(lab.guest) == -signal.SIGKILL
    await old.aclose()

    second = f"{lab.control}2"
    await trio.to_thread.run_sync(
        lab.start, ["--port=packet:near?vnet_hdr=no", f"--control={second}", "--secret=another"]
    )
    new = await SocketGuest.attach(second, patience=10)
    await new.lend_cache(cache)
    await new.pause()
    await new.load([(0, cache.pages)], state)
    await new.resume()
    output, _ = await trio.to_thread.run_sync(download.communicate)
    assert output.split()[0].decode() == digest(SIZE)
    await new.aclose()
    cache.close()


async def test_a_state_that_is_none_ends_the_guest(linux: Callable[..., LinuxLab]) -> None:
    lab = linux()
    guest = await SocketGuest.attach(str(lab.control), patience=10)
    cache = Region.create(guest.region.size)
    await guest.lend_cache(cache)
    await guest.pause()
    with pytest.raises(CheckpointerError, match="device state"):
        await guest.load([], b"nonsense")
    assert await wait_for_exit(lab.guest) == 1
    await guest.aclose()
    cache.close()


async def test_a_guest_wakes_up_in_the_memory_that_it_had(linux: Callable[..., LinuxLab]) -> None:
    lab = linux()
    lab.shell(f"curl -s -X PUT -d kept http://{GUEST4}/kv/a")
    guest = await SocketGuest.attach(str(lab.control), patience=10)
    descriptor = os.dup(guest.region.descriptor)
    await guest.kill()
    await guest.aclose()
    path = f"/proc/{os.getpid()}/fd/{descriptor}"
    lab.start(["--port=packet:near?vnet_hdr=no", f"--memory={path}"])
    os.close(descriptor)
    assert lab.shell(f"curl -s http://{GUEST4}/kv/a") == "kept"
