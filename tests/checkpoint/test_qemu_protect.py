"""A QEMU guest that runs alone gets a new secondary: what can go wrong, and who is fenced then."""

import os
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from colo_compare.core.sides import SECONDARY
from colo_compare.errors import ConfigError, ProtectionFailed
from tests.checkpoint.fake_pair import FakePair
from tests.checkpoint.test_qemu import (
    HEARTBEAT,
    SHORT,
    Make,
    Running,
    make,
    newcomer,
    pair,
    request,
    running,
    until,
)

__all__ = ["make", "pair", "running"]  # fixtures


async def test_the_old_secondary_is_the_primary_of_the_new_pair(pair: FakePair, running: Running) -> None:
    async with running() as (backend, proxy):
        await backend.request(request())
        first, second = pair.primary, pair.secondary
        await backend.promote(SECONDARY)
        assert backend.options.primary == second.address
        assert backend.options.secondary == first.address  # where the next one may well be
        third = await pair.bring()
        pair.log.clear()
        await backend.protect(newcomer(backend, third))
        await backend.request(request(2))
        assert proxy.reports[-3:] == ["paused 2", "loaded 2", "committed 2"]
        assert pair.log[:3] == [
            "secondary: migrate-set-parameters",
            "secondary: migrate-set-capabilities",
            "secondary: migrate",
        ]
        await backend.promote(SECONDARY)
        assert pair.fenced == [f"primary {first.address}", f"primary {second.address}"]
        assert backend.options.primary == third.address


@pytest.mark.parametrize(
    ("state", "changes", "words"),
    [
        ({"status": "running"}, {}, "waits for no migration"),
        ({"mode": "secondary"}, {}, "neither a pair nor two guests of which to make one"),
        ({}, {"migrate_uri": ""}, "name the secondary's -incoming address"),
        ({"hangs": True}, {"heartbeat_timeout": SHORT}, "says nothing within"),
        ({"version": (10, 0, 0)}, {}, "COLO does not work in QEMU 10.0.0"),
        ({}, {"secondary": "unix:/nowhere"}, "/nowhere"),
    ],
)
async def test_a_guest_that_cannot_be_meant_is_not_fenced(
    pair: FakePair, running: Running, state: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    async with running() as (backend, _):
        await backend.abandon(SECONDARY)
        fenced = pair.fenced
        guest = await pair.bring()
        for name, value in state.items():
            setattr(guest, name, value)
        with pytest.raises(ProtectionFailed, match=words):
            await backend.protect(newcomer(backend, guest, **changes))
        assert pair.fenced == fenced
        assert not backend.ready
        await backend.protect(newcomer(backend, await pair.bring()))
        assert backend.ready


async def test_options_that_cannot_be_meant(pair: FakePair, running: Running) -> None:
    async with running() as (backend, _):
        await backend.abandon(SECONDARY)
        guest = await pair.bring()
        for change, path in (
            ({"primary": "unix:/another"}, "primary: is the monitor of the guest that is left"),
            ({"secondary": backend.options.primary}, "secondary: is the primary's"),
            ({"secondary": "nonsense"}, "secondary"),
        ):
            with pytest.raises(ConfigError, match=rf"\$\.checkpointer\.{path}"):
                await backend.protect(newcomer(backend, guest, **change))
        await backend.protect(newcomer(backend, guest))


async def test_a_migration_that_fails_costs_the_new_guest_only(pair: FakePair, running: Running) -> None:
    async with running() as (backend, proxy):
        await backend.promote(SECONDARY)
        survivor, guest = pair.secondary, await pair.bring()

        async def fail() -> None:
            await trio.lowlevel.checkpoint()
            pair.migration = "failed"

        pair.migrate = fail
        with pytest.raises(ProtectionFailed, match="the migration to the secondary has failed"):
            await backend.protect(newcomer(backend, guest))
        assert pair.fenced[1:] == [f"secondary {guest.address}"]
        assert survivor.status == "running"
        assert f"{survivor.name}: migrate_cancel" in pair.log
        assert proxy.reports == []
        pair.migration, pair.migrate = "colo", pair.become_a_pair
        await backend.protect(newcomer(backend, await pair.bring()))
        await backend.request(request())
        assert proxy.reports[-1] == "committed 1"


@pytest.mark.parametrize("half", [False, True])
async def test_nobody_waits_for_the_migration(pair: FakePair, running: Running, half: bool) -> None:
    """`half`: the guest that is left is in COLO already, and stands still."""
    async with running() as (backend, _):
        await backend.promote(SECONDARY)
        survivor, guest = pair.secondary, await pair.bring()
        begun = trio.Event()

        async def hang() -> None:
            if half:
                survivor.mode = "primary"
                await survivor.set_running(False)
            begun.set()
            await trio.lowlevel.checkpoint()

        pair.migrate, pair.migration = hang, "active"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.protect, newcomer(backend, guest))
            await begun.wait()
            nursery.cancel_scope.cancel()
        assert pair.fenced[-1] == f"secondary {guest.address}"
        assert (survivor.mode, survivor.status) == ("none", "running")
        assert pair.log.count(f"{survivor.name}: {HEARTBEAT}") == (2 if half else 1)


async def test_a_new_guest_that_cannot_be_fenced(pair: FakePair, running: Running) -> None:
    """It may be half a secondary: the next attempt begins with its end."""
    async with running() as (backend, _):
        await backend.promote(SECONDARY)
        guest = await pair.bring()
        pair.migration = "failed"
        with pytest.raises(ProtectionFailed, match='the fence program "/bin/false" exited with 1'):
            await backend.protect(newcomer(backend, guest, fence=("/bin/false",)))
        with pytest.raises(ProtectionFailed, match='the fence program "/bin/false" exited with 1'):
            await backend.protect(newcomer(backend, guest))
        assert not backend.ready
        assert not backend.guests[SECONDARY].monitor.gone.is_set()


async def test_without_a_monitor_nobody_knows_the_guest_that_is_left(
    pair: FakePair, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as (backend, _):
        await backend.promote(SECONDARY)
        await pair.secondary.die()
        await until(lambda: "nothing is known any more" in caplog.text)
        with pytest.raises(ProtectionFailed, match="its monitor was lost; start the proxy again"):
            await backend.protect(newcomer(backend, await pair.bring()))


async def test_a_farewell_that_failed_is_said_again(pair: FakePair, running: Running) -> None:
    async with running(fence=("/bin/sh", "-c", "exit 1")) as (backend, _):
        old = pair.secondary
        with pytest.raises(Exception, match="exited with 1"):
            await backend.abandon(SECONDARY)
        guest = await pair.bring()
        with pytest.raises(ProtectionFailed, match="exited with 1"):
            await backend.protect(newcomer(backend, guest))
        assert old.mode == "secondary"
        assert guest.status == "inmigrate"


async def test_the_primary_of_a_new_pair_is_not_fenced_before_anybody_could_take_over(
    pair: FakePair, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(heartbeat_interval=SHORT, heartbeat_timeout=SHORT) as (backend, proxy):
        await backend.request(request())
        await backend.promote(SECONDARY)
        await backend.protect(newcomer(backend, await pair.bring()))
        pair.primary.hangs = True
        await until(lambda: "the secondary could not take over yet" in caplog.text)
        assert len(pair.fenced) == 1
        pair.primary.hangs = False
        await backend.request(request(2))
        assert proxy.reports[-1] == "committed 2"


async def test_it_is_not_running(pair: FakePair, make: Make) -> None:
    backend = make()
    with pytest.raises(ProtectionFailed, match="nothing is known"):
        await backend.protect(newcomer(backend, pair.secondary))


async def test_a_slow_fence_of_the_old_secondary_says_nothing_of_the_new_one(
    pair: FakePair, running: Running, tmp_path: Path
) -> None:
    """The backend fences what it found hung, and so does the proxy's farewell; then there is a new pair."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    slow = ("/bin/sh", "-c", f"mkdir {tmp_path}/first && cat {gate}; {pair.fence[2]}")
    async with running(heartbeat_interval=SHORT, heartbeat_timeout=SHORT, fence=slow) as (backend, proxy):
        await backend.request(request())
        old = pair.secondary
        old.hangs = True
        await until((tmp_path / "first").exists)  # found, and being fenced
        await backend.abandon(SECONDARY)
        await backend.protect(newcomer(backend, await pair.bring(), fence=pair.fence))
        await trio.to_thread.run_sync(gate.write_text, "", abandon_on_cancel=True)
        await until(lambda: len(pair.fenced) == 2)
        await trio.testing.wait_all_tasks_blocked()
        assert backend.ready
        await backend.request(request(2))
        assert "lost secondary" not in proxy.reports
        assert proxy.reports[-1] == "committed 2"
