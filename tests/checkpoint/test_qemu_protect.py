"""A QEMU guest that runs alone gets a new secondary: what can go wrong, and who is fenced then."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from colo_compare.checkpoint import qemu_filters
from colo_compare.checkpoint.contract import Checkpointer, NewSecondary
from colo_compare.checkpoint.qemu import QemuCheckpointer
from colo_compare.checkpoint.qemu_options import QemuOptions
from colo_compare.core.sides import SECONDARY
from colo_compare.errors import CheckpointerError, ConfigError, ProtectionFailed
from tests.checkpoint.fake_pair import FakePair
from tests.checkpoint.test_qemu import (
    HEARTBEAT,
    SHORT,
    Make,
    Proxy,
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


# Behind filters

LISTEN = {"listen_mirror": "unix:/run/mirror", "listen_released": "tcp:127.0.0.1:9005"}
FILTERED = {"secondary_filters": ("f1", "f2"), **LISTEN}
WAY_OUT, MIRROR, RELEASED, SAID = (f"colo-compare-{name}" for name in ("out", "mirror", "released", "said"))


class Client:
    """The proxy's client port, when it is asked to connect, and what its guest was then."""

    def __init__(self, pair: FakePair) -> None:
        self._pair = pair
        self.added: list[str] | None = None  # filters
        self.error: Exception | None = None

    async def connect(self) -> None:
        guest = self._pair.primary
        assert set(guest.devices) == {"said", MIRROR, RELEASED}
        self.added = [properties["id"] for properties in guest.added]
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error


async def behind_filters(
    pair: FakePair, backend: Checkpointer, **changes: Any
) -> tuple[Client, NewSecondary]:
    """Give what the operator would say after a failover between filters, and the client's port."""
    client = Client(pair)
    new = newcomer(backend, await pair.bring(), **changes)
    return client, dataclasses.replace(new, connect_client=client.connect)


async def test_a_guest_that_took_over_behind_filters_gets_those_of_a_primary(
    pair: FakePair, running: Running
) -> None:
    async with running(**FILTERED) as (backend, proxy):
        await backend.promote(SECONDARY)
        survivor = pair.secondary
        client, new = await behind_filters(pair, backend)
        pair.log.clear()
        await backend.protect(new)
        assert not backend.releases_by_port
        assert client.added == [WAY_OUT]  # its words are not taken from it before
        place = {"netdev": "n0", "vnet_hdr_support": True, "position": "tail"}
        # What comes from the guest passes them from the last to the first.
        assert survivor.added == [
            place | {"qom-type": "filter-redirector", "id": RELEASED, "queue": "rx", "indev": RELEASED},
            place | {"qom-type": "filter-mirror", "id": MIRROR, "queue": "tx", "outdev": MIRROR},
            place | {"qom-type": "filter-redirector", "id": SAID, "queue": "rx", "outdev": "said"},
        ]
        assert survivor.devices == {
            "said": None,
            MIRROR: {
                "addr": {"type": "unix", "data": {"path": "/run/mirror"}},
                "server": True,
                "wait": False,
            },
            RELEASED: {
                "addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": "9005"}},
                "server": True,
                "wait": False,
            },
        }
        assert pair.log.index("secondary: migrate") < pair.log.index("secondary: object-add")
        await backend.request(request())
        assert proxy.reports[-1] == "committed 1"
        # Its secondary is replaced as any other's: it has its filters.
        added = list(survivor.added)
        await backend.abandon(SECONDARY)
        client, new = await behind_filters(pair, backend)
        await backend.protect(new)
        assert client.added is None
        assert survivor.added == added
        # And that one takes over, and so on.
        await backend.request(request(2))
        await backend.promote(SECONDARY)
        client, new = await behind_filters(pair, backend)
        await backend.protect(new)
        assert client.added == [WAY_OUT]


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (f"chardev-add {MIRROR}", "chardev-add"),
        (f"chardev-add {RELEASED}", "chardev-add"),
        ("migrate", "migrate"),
        (f"object-add {RELEASED}", "object-add"),
        (f"object-add {MIRROR}", "object-add"),
        (f"object-add {SAID}", "object-add"),
        ("client", "nobody is there"),
    ],
)
async def test_what_is_refused_leaves_no_filters_behind(
    pair: FakePair, running: Running, refused: str, words: str
) -> None:
    async with running(**FILTERED) as (backend, proxy):
        await backend.promote(SECONDARY)
        survivor = pair.secondary
        client, new = await behind_filters(pair, backend)
        survivor.refuses.add(refused)
        if refused == "client":
            client.error = ProtectionFailed("nobody is there")
        with pytest.raises(ProtectionFailed, match=words):
            await backend.protect(new)
        assert [properties["id"] for properties in survivor.added] == [WAY_OUT]
        assert set(survivor.devices) == {"said"}
        assert (survivor.mode, survivor.status) == ("none", "running")
        assert backend.releases_by_port
        assert not backend.ready
        # Nothing was done to a new guest before the migration.
        assert len(pair.fenced) == (1 if refused.startswith("chardev-add") else 2)
        survivor.refuses.clear()
        client, new = await behind_filters(pair, backend)
        await backend.protect(new)
        assert [properties["id"] for properties in survivor.added] == [RELEASED, MIRROR, SAID]
        await backend.request(request())
        assert proxy.reports[-1] == "committed 1"


@pytest.mark.parametrize(
    ("device", "words"), [(MIRROR, "the new secondary's"), (RELEASED, "the client's port")]
)
async def test_nobody_connects_to_where_the_guest_listens(
    pair: FakePair, running: Running, device: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_filters, "PEER_LIMIT", 0.05)
    async with running(**FILTERED) as (backend, _):
        await backend.promote(SECONDARY)
        survivor = pair.secondary
        survivor.peerless.add(device)
        _, new = await behind_filters(pair, backend)
        with pytest.raises(ProtectionFailed, match=f"nobody has connected to its {device} .* {words}"):
            await backend.protect(new)
        assert [properties["id"] for properties in survivor.added] == [WAY_OUT]


async def test_nobody_waits_for_the_mirror_of_a_dead_guest(pair: FakePair, running: Running) -> None:
    async with running(**FILTERED) as (backend, _):
        await backend.promote(SECONDARY)
        survivor = pair.secondary
        survivor.peerless.add(MIRROR)
        _, new = await behind_filters(pair, backend)
        survivor.on_look = pair.secondary.die
        with pytest.raises(ProtectionFailed, match="query-status has no answer"):
            await backend.protect(new)
        assert [properties["id"] for properties in survivor.added] == [WAY_OUT]


@pytest.mark.parametrize("key", sorted(LISTEN))
async def test_where_a_guest_that_took_over_shall_listen_must_be_said(
    pair: FakePair, running: Running, key: str
) -> None:
    async with running(**FILTERED | {key: ""}) as (backend, _):
        await backend.promote(SECONDARY)
        _, new = await behind_filters(pair, backend)
        with pytest.raises(ProtectionFailed, match=rf"\$\.checkpointer\.{key} is missing"):
            await backend.protect(new)
        assert len(pair.fenced) == 1
        _, new = await behind_filters(pair, backend, **LISTEN)
        await backend.protect(new)


@pytest.mark.parametrize("key", sorted(LISTEN))
@pytest.mark.parametrize(
    ("text", "words"), [("nonsense", "nonsense"), ("tls:host:1", "must be unix:PATH or tcp:")]
)
async def test_where_no_guest_can_listen(make: Make, key: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"\$\.checkpointer\.{key}: .*{words}"):
        make(**{key: text})


async def test_a_guest_of_whose_filters_nothing_is_known_is_not_half_protected(
    pair: FakePair, running: Running
) -> None:
    """It speaks past the proxy: that would release what nobody has compared."""
    async with running(**FILTERED) as (backend, _):
        pair.secondary.refuses.add("qom-get")
        await backend.promote(SECONDARY)
        _, new = await behind_filters(pair, backend)
        with pytest.raises(ProtectionFailed, match="add a primary's by hand, and start the proxy again"):
            await backend.protect(new)
        assert len(pair.fenced) == 1


async def test_a_new_guest_without_filters_would_speak_to_the_network(
    pair: FakePair, running: Running
) -> None:
    async with running(**FILTERED) as (backend, _):
        await backend.promote(SECONDARY)
        _, new = await behind_filters(pair, backend)
        del pair.secondary.filters["f2"]
        with pytest.raises(ProtectionFailed, match=r"no object f2 \(\$\.checkpointer\.secondary_filters\)"):
            await backend.protect(new)
        assert len(pair.fenced) == 1


async def test_a_secondary_without_filters_does_not_become_one(pair: FakePair, make: Make) -> None:
    del pair.secondary.filters["f1"]
    with pytest.raises(CheckpointerError, match=r"no object f1 .* keep that guest from its network"):
        await make(**FILTERED).run(Proxy())
    assert pair.log == []


async def test_a_client_s_port_without_a_proxy(pair: FakePair, running: Running) -> None:
    async with running(**FILTERED) as (backend, _):
        await backend.promote(SECONDARY)
        with pytest.raises(ProtectionFailed, match="the client's port cannot be connected again"):
            await backend.protect(newcomer(backend, await pair.bring()))


async def test_a_proxy_that_is_started_after_the_failover(pair: FakePair, running: Running) -> None:
    async with running(**FILTERED) as (backend, _):
        await backend.promote(SECONDARY)
    new = newcomer(backend, await pair.bring()).options
    assert isinstance(new, QemuOptions)
    survivor = pair.primary
    survivor.peerless.add(RELEASED)
    again = QemuCheckpointer(new)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(again.run, Proxy())
        await until(lambda: RELEASED in survivor.devices and survivor.mode == "primary")
        assert not again.ready
        survivor.peerless.clear()  # the client's port is there
        await until(lambda: again.ready)
        assert [properties["id"] for properties in survivor.added] == [RELEASED, MIRROR, SAID]
        assert not again.releases_by_port
        nursery.cancel_scope.cancel()


async def test_a_proxy_that_is_started_after_the_failover_must_know_where_to_listen(
    pair: FakePair, running: Running
) -> None:
    async with running(**FILTERED) as (backend, _):
        await backend.promote(SECONDARY)
    new = newcomer(backend, await pair.bring(), listen_mirror="").options
    assert isinstance(new, QemuOptions)
    with pytest.raises(CheckpointerError, match=r"\$\.checkpointer\.listen_mirror is missing"):
        await QemuCheckpointer(new).run(Proxy())
