"""Fencing, of real processes: nothing but the death of the guest gives the proof."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from colo_compare.checkpoint.local_process import LocalProcess
from colo_compare.checkpoint.qemu_fence import Fence, process_behind
from colo_compare.core.sides import PRIMARY, SECONDARY
from colo_compare.errors import CheckpointerError

QEMU = "qemu-system-x86_64"
PATIENCE = 20.0  # seconds


@pytest.fixture
def monitor(tmp_path: Path) -> Path:
    return tmp_path / "qmp"


@pytest.fixture
def qemu(monitor: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a QEMU without a machine; its monitor answers when it is given."""
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed")
    argv = [
        "-machine",
        "none",
        "-nodefaults",
        "-display",
        "none",
        "-qmp",
        f"unix:{monitor},server=on,wait=off",
    ]
    with subprocess.Popen([QEMU, *argv]) as process:
        try:
            while not answers(monitor):
                os.sched_yield()
            yield process
        finally:
            process.kill()


def answers(monitor: Path) -> bool:
    """Whether somebody listens: the socket's file is there a little earlier."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(monitor)) == 0


async def behind(path: Path) -> LocalProcess | None:
    stream = await trio.open_unix_socket(str(path))
    async with stream:
        return process_behind(stream.socket)


async def test_the_process_behind_a_monitor_is_killed(qemu: subprocess.Popen[bytes], monitor: Path) -> None:
    process = await behind(monitor)
    assert process is not None
    assert process.pid == qemu.pid
    assert qemu.poll() is None
    with trio.fail_after(PATIENCE):
        fenced = await Fence("unix:qmp", process, (), timeout=PATIENCE).fence(PRIMARY)
    assert process.dead
    assert fenced.who == "unix:qmp"
    assert qemu.wait() == -9
    await Fence("unix:qmp", process, (), timeout=PATIENCE).fence(PRIMARY)  # a dead one is as good
    process.close()


async def test_several_tasks_wait_for_its_end(qemu: subprocess.Popen[bytes], monitor: Path) -> None:
    process = await behind(monitor)
    assert process is not None
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.wait)
            nursery.start_soon(process.wait)
            await trio.testing.wait_all_tasks_blocked()
            qemu.kill()
    process.close()


async def test_a_program_that_is_no_qemu_is_left_alone(tmp_path: Path) -> None:
    # As with libvirt, which makes the socket and hands it to QEMU: the peer is this test.
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        assert await behind(tmp_path / "socket") is None


async def test_a_connection_over_the_network_tells_nothing_of_the_process() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listeners[0] as listener:
        stream = await trio.open_tcp_stream(*listener.socket.getsockname())
        async with stream:
            assert process_behind(stream.socket) is None


def test_a_guest_that_nothing_can_kill_is_refused() -> None:
    with pytest.raises(
        CheckpointerError, match=r"unix:qmp: this guest could not be fenced.*\$.checkpointer.fence"
    ):
        Fence("unix:qmp", None, (), timeout=PATIENCE)


async def test_the_program_is_told_whom(tmp_path: Path) -> None:
    told = tmp_path / "told"
    argv = ("/bin/sh", "-c", f'echo "$COLO_EVENT $COLO_SIDE $COLO_MONITOR" > {told}')
    await Fence("tcp:host:4444", None, argv, timeout=PATIENCE).fence(SECONDARY)
    assert told.read_text() == "fence secondary tcp:host:4444\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ("/bin/sh", "-c", "echo no switch >&2; exit 3"),
            'the fence program "/bin/sh" exited with 3: no switch$',
        ),
        (("/no/such/program",), 'the fence program "/no/such/program" cannot be started'),
        (("/bin/sleep", "1000"), 'the fence program "/bin/sleep" took too long'),
    ],
)
async def test_without_success_there_is_no_proof(argv: tuple[str, ...], message: str) -> None:
    fence = Fence("tcp:host:4444", None, argv, timeout=0.05 if "sleep" in argv[0] else PATIENCE)
    with pytest.raises(CheckpointerError, match=f"^tcp:host:4444: {message}"):
        await fence.fence(PRIMARY)


async def test_a_dead_process_is_not_enough_where_a_program_is_to_run_too(
    qemu: subprocess.Popen[bytes], monitor: Path
) -> None:
    process = await behind(monitor)
    assert process is not None
    with pytest.raises(CheckpointerError, match="exited with 1"):
        await Fence("unix:qmp", process, ("/bin/false",), timeout=PATIENCE).fence(PRIMARY)
    assert process.dead
    process.close()


async def test_a_process_of_another_user_is_not_taken_for_dead(
    qemu: subprocess.Popen[bytes], monitor: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    process = await behind(monitor)
    assert process is not None
    os.setresuid(65534, 65534, 0)  # kill(2) looks at the real and at the effective one
    try:
        with pytest.raises(CheckpointerError, match=f"process {qemu.pid} belongs to another user"):
            await Fence("unix:qmp", process, (), timeout=PATIENCE).fence(PRIMARY)
    finally:
        os.setresuid(0, 0, 0)
    assert not process.dead
    process.close()
