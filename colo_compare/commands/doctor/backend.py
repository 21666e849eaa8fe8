"""The doctor's look at the checkpointer: its programs, or the monitors of its virtual machines."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import trio

from colo_compare.checkpoint.command import CommandOptions
from colo_compare.checkpoint.null import NullOptions
from colo_compare.checkpoint.qemu_options import QemuOptions
from colo_compare.checkpoint.qemu_pair import BROKEN
from colo_compare.checkpoint.qmp import Monitor
from colo_compare.checkpoint.qmp_address import MonitorAddress
from colo_compare.commands.doctor.finding import Finding, bad, doubtful, good
from colo_compare.config import CheckpointerTable
from colo_compare.core.settings import OBSERVE
from colo_compare.errors import MonitorError, MonitorRefused

TIMEOUT: Final = 3.0  # seconds for each answer of a monitor
TESTED: Final = (7, 2)


def look_at_backend(table: CheckpointerTable, mode: str, *, running: bool) -> Iterator[Finding]:
    """Give the findings. `running`: a proxy has the monitors already, which serve one client at a time."""
    options = table.options
    if isinstance(options, CommandOptions):
        yield from _programs(options)
    elif isinstance(options, QemuOptions):
        if running:
            yield good("QEMU", "the proxy that runs has the monitors; colo-compare status says how they are")
        else:
            yield from trio.run(_monitors, options)
    elif isinstance(options, NullOptions) and mode == OBSERVE:
        yield good("checkpointer", "null copies nothing, and to observe nothing need be copied")
    elif isinstance(options, NullOptions):
        text = "null copies nothing: right for guests that are known to be deterministic, and no others"
        yield doubtful("checkpointer", text, 'choose another backend, or mode = "observe"')
    else:
        yield good("checkpointer", f"{table.backend}: nothing to look at before it starts")


def _programs(options: CommandOptions) -> Iterator[Finding]:
    for name, value in msgspec.structs.asdict(options).items():
        if isinstance(value, tuple) and value:
            program = Path(value[0])
            if not program.is_file():
                yield bad(
                    name, f"there is no program {program}", f"install it, or correct $.checkpointer.{name}"
                )
            elif not os.access(program, os.X_OK):
                yield bad(name, f"{program} cannot be executed", f"chmod +x {program}")
            else:
                yield good(name, str(program))


@dataclass(frozen=True)
class _Machine:
    """What a monitor says of its virtual machine."""

    version: tuple[int, int, int]
    machine: str  # its type
    colo: bool  # whether this QEMU was built with COLO


async def _monitors(options: QemuOptions) -> list[Finding]:
    found: list[Finding] = []
    machines: dict[str, _Machine] = {}
    for side, text in (("primary", options.primary), ("secondary", options.secondary)):
        about = f"{side} QEMU"
        try:
            machine = await _ask(MonitorAddress.parse(text), options.tls_dir)
        except MonitorError as error:
            fix = f"start QEMU with -qmp {text},server=on,wait=off, and let nobody else use that monitor"
            found.append(bad(about, str(error), fix))
            continue
        machines[side] = machine
        found.append(_judge(about, machine))
    if len(machines) == 2:
        found.append(_compare(machines["primary"], machines["secondary"]))
    return found


async def _ask(address: MonitorAddress, tls_dir: str) -> _Machine:
    monitor = Monitor(address, lambda _: None, timeout=TIMEOUT)
    await monitor.connect(tls_dir)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(monitor.run)
            try:
                return await _interview(monitor)
            finally:
                nursery.cancel_scope.cancel()
    finally:
        await monitor.aclose()


async def _interview(monitor: Monitor) -> _Machine:
    capabilities = await monitor.execute("query-migrate-capabilities")
    try:
        kind = await monitor.execute("qom-get", {"path": "/machine", "property": "type"})
    except MonitorRefused:  # of a QEMU older than all that we know
        kind = ""
    names = {entry["capability"] for entry in capabilities}
    return _Machine(monitor.version, str(kind).removesuffix("-machine"), "x-colo" in names)


def _judge(about: str, machine: _Machine) -> Finding:
    version = ".".join(map(str, machine.version))
    text = f"version {version}, machine {machine.machine or 'unknown'}"
    if machine.version[:2] in BROKEN:
        return bad(about, f"{text}: COLO does not work in it", "use QEMU 7.2, with which this is tested")
    if not machine.colo:
        return bad(
            about, f"{text}: built without COLO", "use a QEMU with --enable-replication, like Debian's"
        )
    if machine.version[:2] != TESTED:
        return doubtful(about, f"{text}: not tested with this proxy", "use QEMU 7.2, or test it yourself")
    return good(about, text)


def _compare(primary: _Machine, secondary: _Machine) -> Finding:
    if (primary.version, primary.machine) == (secondary.version, secondary.machine):
        return good("QEMU pair", "the same version and machine type on both sides")
    return bad(
        "QEMU pair",
        "the two differ in version or machine type: the state of one does not fit the other",
        f"start both with the same QEMU and -machine {primary.machine or 'TYPE'}",
    )
