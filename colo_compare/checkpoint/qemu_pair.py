"""Bringing two QEMU guests into COLO, or finding that they are in it."""

import logging
from contextlib import suppress
from typing import Final

import trio

from colo_compare.checkpoint.qemu_disks import Disks
from colo_compare.checkpoint.qemu_guest import DELAY_PARAMETER, NEVER, QemuGuest
from colo_compare.core.sides import SECONDARY
from colo_compare.errors import CheckpointerError, MonitorError, MonitorRefused

logger: Final = logging.getLogger(__name__)

# COLO does not work in these.
BROKEN: Final = ((10, 0), (10, 1))
_NEEDED: Final = frozenset(("query-colo-status", "x-colo-lost-heartbeat"))
_CAPABILITY: Final = "x-colo"
_LOOK_AGAIN: Final = 0.02  # seconds


async def form_pair(
    primary: QemuGuest, secondary: QemuGuest, migrate_uri: str, patience: float, disks: Disks
) -> None:
    """Migrate the primary to the waiting secondary, in COLO mode; or join the pair that they are.

    Returns when both run. Raises CheckpointerError when they are neither a pair nor can become one, or not
    within `patience` seconds.
    """
    for guest in (primary, secondary):
        await _check_support(guest)
    if (await primary.colo_mode(), await secondary.colo_mode()) == ("primary", "secondary"):
        await _wait_until_pair(primary, secondary, patience)
        return
    await check_pair(primary, secondary, migrate_uri)
    await make_pair(primary, secondary, migrate_uri, patience, disks)


async def check_pair(primary: QemuGuest, secondary: QemuGuest, migrate_uri: str) -> None:
    """Raise CheckpointerError if the two cannot be made a pair. Changes nothing."""
    for guest in (primary, secondary):
        await _check_support(guest)
    modes = (await primary.colo_mode(), await secondary.colo_mode())
    if modes != ("none", "none"):
        raise CheckpointerError(
            f"{primary.address} is in COLO mode {modes[0]} and {secondary.address} in mode {modes[1]}: "
            "neither a pair nor two guests of which to make one; look at $.checkpointer.primary and secondary"
        )
    await _check_waiting(primary, secondary, migrate_uri)


async def make_pair(
    primary: QemuGuest, secondary: QemuGuest, migrate_uri: str, patience: float, disks: Disks
) -> None:
    """Migrate the primary to the waiting secondary, in COLO mode, and return when both run.

    Raises CheckpointerError when nothing comes of it, or not within `patience` seconds.
    """
    try:
        await disks.plug(primary, secondary)
        await _migrate(primary, secondary, migrate_uri)
        await _wait_until_pair(primary, secondary, patience)
    except BaseException:
        with trio.CancelScope(shield=True), suppress(MonitorError):
            await disks.give_up(primary)
        raise


async def part(survivor: QemuGuest, other: QemuGuest, patience: float) -> None:
    """Let a guest be alone again that was on its way to a pair, the other guest fenced first.

    Raises CheckpointerError when that is not possible within `patience` seconds.
    """
    with suppress(MonitorRefused):  # it is too late, or nothing has begun
        await survivor.monitor.execute("migrate_cancel")
    fenced = await other.fence.fence(SECONDARY)
    await survivor.run_alone(fenced, patience)


async def _wait_until_pair(primary: QemuGuest, secondary: QemuGuest, patience: float) -> None:
    with trio.move_on_after(patience):
        await _wait_for_colo(primary, secondary)
        await _calm(primary)
        return
    raise CheckpointerError(
        f"{primary.address} and {secondary.address} are not a running pair within {patience:g} s: "
        "see the messages of both QEMU processes"
    )


async def _check_support(guest: QemuGuest) -> None:
    version = guest.monitor.version
    text = ".".join(str(part) for part in version)
    if version[:2] in BROKEN:
        raise CheckpointerError(f"{guest.address}: COLO does not work in QEMU {text}: use another version")
    commands = {command["name"] for command in await guest.monitor.execute("query-commands")}
    if not commands >= _NEEDED:
        raise CheckpointerError(
            f"{guest.address}: this QEMU {text} was built without COLO (--enable-replication)"
        )


async def _check_waiting(primary: QemuGuest, secondary: QemuGuest, uri: str) -> None:
    if not uri:
        raise CheckpointerError(
            f"{primary.address} and {secondary.address} are not in COLO: name the secondary's -incoming "
            "address in $.checkpointer.migrate_uri, so that it can be made the primary's copy"
        )
    status = await secondary.status()
    if status != "inmigrate":
        raise CheckpointerError(
            f"{secondary.address}: the secondary is in state {status} and waits for no migration: "
            f"start it with -incoming {uri}"
        )


async def _migrate(primary: QemuGuest, secondary: QemuGuest, uri: str) -> None:
    execute = primary.monitor.execute
    await execute("migrate-set-parameters", {DELAY_PARAMETER: NEVER})
    await execute("migrate-set-capabilities", {"capabilities": [{"capability": _CAPABILITY, "state": True}]})
    await execute("migrate", {"uri": uri})
    logger.info("the primary %s is copied to the secondary %s", primary.address, secondary.address)


async def _wait_for_colo(primary: QemuGuest, secondary: QemuGuest) -> None:
    """Wait until both are in COLO and run."""
    while True:
        state = await primary.monitor.execute("query-migrate")
        if state.get("status") in ("failed", "cancelled", "completed"):
            raise CheckpointerError(
                f"{primary.address}: the migration to the secondary has {state['status']}"
                f"{': ' + state['error-desc'] if 'error-desc' in state else ''}"
            )
        if (await primary.colo_mode(), await secondary.colo_mode()) == ("primary", "secondary"):
            status = await primary.status()
            if status == "running" and await secondary.status() == "running":
                return
            if status == "paused":
                # Left so by somebody who went away between the stop and the trigger of a checkpoint.
                await primary.cont()
        await trio.sleep(_LOOK_AGAIN)


async def _calm(primary: QemuGuest) -> None:
    """See to it that QEMU makes no checkpoint by itself."""
    parameters = await primary.monitor.execute("query-migrate-parameters")
    if parameters[DELAY_PARAMETER] == NEVER:
        return
    # Setting it makes a checkpoint. It is over when the primary has resumed.
    resumed = primary.expect("RESUME")
    await primary.trigger()
    await resumed.wait()
