"""What is known of a process once its descriptor was let go, as another task may still ask."""

import os
import subprocess
from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from colo_compare.checkpoint.local_process import LocalProcess


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sleep", "1000"]) as process:
        yield process
        process.kill()


def held(process: subprocess.Popen[bytes]) -> LocalProcess:
    return LocalProcess(process.pid, os.pidfd_open(process.pid))


async def test_one_that_had_ended_stays_dead(sleeper: subprocess.Popen[bytes]) -> None:
    process = held(sleeper)
    process.kill()
    await process.wait()
    for _ in range(2):
        process.close()
        assert process.dead
        await process.wait()
        process.kill()


async def test_one_that_lived_is_never_taken_for_dead(
    sleeper: subprocess.Popen[bytes], nursery: trio.Nursery
) -> None:
    process = held(sleeper)
    process.close()
    process.kill()  # not by a descriptor that means something else by now
    ended = False

    async def wait() -> None:
        nonlocal ended
        await process.wait()
        ended = True

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert not ended
    assert not process.dead
    assert sleeper.poll() is None


async def test_who_waits_already_sees_the_end(
    sleeper: subprocess.Popen[bytes], nursery: trio.Nursery
) -> None:
    process = held(sleeper)
    async with trio.open_nursery() as inner:
        inner.start_soon(process.wait)
        await wait_all_tasks_blocked()
        process.close()
        sleeper.kill()
