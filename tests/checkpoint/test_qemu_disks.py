"""What is said to QEMU about disks; tests/qemu/test_disks.py sees whether it works."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from colo_compare.checkpoint.qemu import QemuCheckpointer
from colo_compare.checkpoint.qemu_disks import Disks
from colo_compare.checkpoint.qemu_guest import QemuGuest
from colo_compare.checkpoint.qemu_options import QemuOptions
from colo_compare.errors import CheckpointerError, ConfigError
from tests.checkpoint.scripted_monitor import Peer, serve

ADDRESS = {"type": "unix", "path": "/nbd"}


class Talk:
    """Both guests, and what they are told. A copy goes through these states, one for each look."""

    def __init__(self, *states: str) -> None:
        self.said: list[tuple[str, str, Any]] = []
        self.states = [*states]
        self.status = "running"
        self.refuses: set[str] = set()

    async def obey(self, name: str, peer: Peer) -> None:
        await peer.greet()
        while True:
            command = await peer.hear()
            verb, arguments = command["execute"], command.get("arguments", {})
            if not verb.startswith("query-"):
                self.said.append((name, verb, arguments))
            if verb in self.refuses:
                await peer.say({"error": {"class": "GenericError", "desc": "refused"}, "id": command["id"]})
                continue
            job = {"id": "image0-copy", "error": "no space"}
            value: Any = {}
            if verb == "query-jobs":
                value = [{**job, "status": self.states.pop(0)}]
            elif verb == "query-status":
                value = {"status": self.status}
            await peer.say({"return": value, "id": command["id"]})

    @asynccontextmanager
    async def guests(self, directory: Path) -> AsyncIterator[tuple[QemuGuest, QemuGuest]]:
        guests = []
        for name in ("primary", "secondary"):
            guests.append(QemuGuest(f"unix:{directory / name}", lambda guest, event: None, timeout=20))
        async with trio.open_nursery() as nursery:
            for name, guest in zip(("primary", "secondary"), guests, strict=True):
                await serve(nursery, directory / name, partial(self.obey, name))
                await guest.connect("", ("/bin/true",), 1.0)
                nursery.start_soon(guest.monitor.run)
            yield guests[0], guests[1]
            nursery.cancel_scope.cancel()
        for guest in guests:
            await guest.aclose()

    def verbs(self) -> list[str]:
        return [f"{name}: {verb}" for name, verb, _ in self.said]


async def test_a_disk_is_copied_and_plugged_in(tmp_path: Path) -> None:
    talk = Talk("running", "ready", "running", "concluded")
    async with talk.guests(tmp_path) as (primary, secondary):
        await Disks({"disk0": "image0"}, "unix:/nbd", copy=True).plug(primary, secondary)
    client = {"driver": "nbd", "server": ADDRESS, "export": "image0"}
    node = {"driver": "replication", "mode": "primary", "node-name": "image0-replication", "file": client}
    job = {"device": "disk0", "target": "image0-target", "sync": "full", "auto-dismiss": False}
    assert talk.said == [
        ("secondary", "nbd-server-start", {"addr": {"type": "unix", "data": {"path": "/nbd"}}}),
        ("secondary", "nbd-server-add", {"device": "image0", "writable": True}),
        ("primary", "blockdev-add", {"node-name": "image0-target", **client}),
        ("primary", "blockdev-mirror", {"job-id": "image0-copy", **job}),
        ("primary", "stop", {}),
        ("primary", "block-job-cancel", {"device": "image0-copy"}),
        ("primary", "job-dismiss", {"id": "image0-copy"}),
        ("primary", "blockdev-del", {"node-name": "image0-target"}),
        ("primary", "blockdev-add", node),
        ("primary", "x-blockdev-change", {"parent": "disk0", "node": "image0-replication"}),
    ]


async def test_a_disk_that_is_alike_already_is_only_plugged_in(tmp_path: Path) -> None:
    talk = Talk()
    async with talk.guests(tmp_path) as (primary, secondary):
        await Disks({"disk0": "image0"}, "tcp:192.0.2.7:10809", copy=False).plug(primary, secondary)
    assert talk.verbs() == [
        "secondary: nbd-server-start",
        "secondary: nbd-server-add",
        "primary: stop",
        "primary: blockdev-add",
        "primary: x-blockdev-change",
    ]
    assert talk.said[0][2]["addr"] == {"type": "inet", "data": {"host": "192.0.2.7", "port": "10809"}}
    assert talk.said[3][2]["file"]["server"] == {"type": "inet", "host": "192.0.2.7", "port": "10809"}


async def test_a_copy_that_fails_is_told_and_the_primary_never_stops(tmp_path: Path) -> None:
    talk = Talk("running", "concluded")
    async with talk.guests(tmp_path) as (primary, secondary):
        with pytest.raises(CheckpointerError, match="disk0 could not be copied to the secondary: no space"):
            await Disks({"disk0": "image0"}, "unix:/nbd", copy=True).plug(primary, secondary)
    assert talk.verbs()[-1] == "primary: job-dismiss"
    assert "primary: stop" not in talk.verbs()


@pytest.mark.parametrize("status", ["running", "paused"])
async def test_where_no_pair_comes_of_it_the_primary_goes_on_as_it_was(tmp_path: Path, status: str) -> None:
    talk = Talk()
    talk.status = status
    talk.refuses = {"x-blockdev-change", "block-job-cancel"}  # it had not come so far
    async with talk.guests(tmp_path) as (primary, _):
        await Disks({"disk0": "image0"}, "unix:/nbd", copy=True).give_up(primary)
    assert ("primary: cont" in talk.verbs()) == (status == "paused")
    assert talk.said[0] == ("primary", "x-blockdev-change", {"parent": "disk0", "child": "children.1"})


async def test_a_pair_without_disks_is_told_nothing(tmp_path: Path) -> None:
    talk = Talk()
    async with talk.guests(tmp_path) as (primary, secondary):
        disks = Disks({}, "", copy=True)
        await disks.plug(primary, secondary)
        await disks.unplug_primary(primary)
        await disks.unplug_secondary(secondary)
        await disks.give_up(primary)
    assert talk.said == []


@pytest.mark.parametrize(("nbd", "words"), [("", "is missing"), ("here", "no address")])
def test_where_the_images_are_offered_must_be_known(nbd: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"\$\.checkpointer\.nbd: .*{words}"):
        QemuCheckpointer(
            QemuOptions(primary="unix:/a", secondary="unix:/b", disks={"disk0": "image0"}, nbd=nbd)
        )
