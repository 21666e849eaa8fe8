"""The backend against two monitors that do what a test lets them do."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from colo_compare.checkpoint.contract import Checkpointer, Figures, NewSecondary
from colo_compare.checkpoint.pace import LONGEST
from colo_compare.checkpoint.qemu import QemuCheckpointer
from colo_compare.checkpoint.qemu_options import QemuOptions
from colo_compare.checkpoint.qemu_sequence import COPYING, OVER
from colo_compare.core.actions import CheckpointRequest
from colo_compare.core.sides import PRIMARY, SECONDARY, SIDE_NAMES
from colo_compare.errors import CheckpointerError, ConfigError, PromotionFailed
from colo_compare.quantities import Duration
from colo_compare.testing.checkpointer_contract import check_checkpointer
from tests.checkpoint.fake_pair import FakePair, FakeQemu

PATIENCE = 20.0  # seconds, for what must happen
SHORT = Duration(0.05)  # of time-outs that must be run into
LONG = Duration(20)  # of those that must not

HEARTBEAT = "x-colo-lost-heartbeat"


class Proxy:
    """The proxy's side: reports as texts, in order."""

    def __init__(self) -> None:
        self.reports: list[str] = []
        self.pause: float | None = None
        self.on_paused: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self._changed = trio.Event()

    async def _note(self, report: str) -> None:
        self.reports.append(report)
        self._changed.set()
        self._changed = trio.Event()
        await trio.lowlevel.checkpoint()

    async def begun(self) -> int:
        await self._note("begun")
        return 1

    async def paused(self, epoch: int) -> None:
        await self._note(f"paused {epoch}")
        await self.on_paused()

    async def loaded(self, epoch: int) -> None:
        await self._note(f"loaded {epoch}")

    async def committed(self, epoch: int, figures: Figures) -> None:
        self.pause = figures.pause
        await self._note(f"committed {epoch}")

    async def failed(self, epoch: int, detail: str, *, secondary_intact: bool) -> None:
        await self._note(f"failed {epoch}, secondary {'intact' if secondary_intact else 'spoilt'}")

    async def guest_lost(self, side: int, detail: str) -> None:
        await self._note(f"lost {SIDE_NAMES[side]}")

    async def wait_for(self, report: str) -> None:
        with trio.fail_after(PATIENCE):
            while report not in self.reports:
                await self._changed.wait()


def request(epoch: int = 1) -> CheckpointRequest:
    return CheckpointRequest(epoch, ("payload",), "")


@pytest.fixture
async def pair(tmp_path: Path, nursery: trio.Nursery) -> FakePair:
    pair = FakePair(tmp_path)
    await pair.serve(nursery)
    return pair


Make = Callable[..., QemuCheckpointer]


@pytest.fixture
def make(pair: FakePair) -> Make:
    """Give a function that makes a backend for the pair, with options."""

    def make(**options: Any) -> QemuCheckpointer:
        return QemuCheckpointer(
            QemuOptions(
                **{
                    "primary": pair.primary.address,
                    "secondary": pair.secondary.address,
                    "fence": pair.fence,
                    "checkpoint_timeout": LONG,
                    "heartbeat_interval": LONG,
                    "heartbeat_timeout": LONG,
                    **options,
                }
            )
        )

    return make


Running = Callable[..., AbstractAsyncContextManager[tuple[QemuCheckpointer, Proxy]]]


@pytest.fixture
def running(make: Make) -> Running:
    """Give a function that runs a backend in a block."""

    @asynccontextmanager
    async def running(**options: Any) -> AsyncIterator[tuple[QemuCheckpointer, Proxy]]:
        backend, proxy = make(**options), Proxy()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.run, proxy)
            await until(lambda: backend.ready)
            yield backend, proxy
            nursery.cancel_scope.cancel()

    return running


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the other end of a socket has no event for it
            await trio.sleep(0.001)


# The contract


async def test_it_fulfils_the_contract(pair: FakePair, make: Make) -> None:
    primary, secondary = pair.primary, pair.secondary

    def reset() -> None:
        pair.primary, pair.secondary = primary, secondary
        pair.forget_fences()
        pair.reset()

    def fresh() -> QemuCheckpointer:
        reset()
        return make()

    async def another(backend: Checkpointer) -> NewSecondary:
        return newcomer(backend, await pair.bring())

    def failing() -> QemuCheckpointer:
        reset()
        pair.primary.refuses = {"migrate-set-parameters"}
        return make()

    await check_checkpointer(
        fresh,
        make_failing=failing,
        make_unable=lambda: make(secondary="unix:/nowhere"),
        new_secondary=another,
        patience=PATIENCE,
    )


def newcomer(backend: Checkpointer, guest: FakeQemu, **changes: Any) -> NewSecondary:
    """Give what the operator would say of a new guest."""
    changes = {"secondary": guest.address, "migrate_uri": f"unix:{guest.path}.migration", **changes}
    return NewSecondary("primary", "packet:new", msgspec.structs.replace(backend.options, **changes))


async def test_the_primary_is_stopped_and_drained_before_the_checkpoint_begins(
    pair: FakePair, running: Running
) -> None:
    async with running() as (backend, proxy):
        proxy.on_paused = note(pair, "drained")
        await backend.request(request())
    assert proxy.reports == ["paused 1", "loaded 1", "committed 1"]
    assert proxy.pause is not None
    assert pair.log == ["primary: stop", "drained", "primary: migrate-set-parameters"]


def note(pair: FakePair, text: str) -> Callable[[], Awaitable[None]]:
    async def write() -> None:
        pair.log.append(text)

    return write


async def test_figures_tell_of_the_pair(pair: FakePair, running: Running) -> None:
    async with running() as (backend, _):
        await backend.request(request())
        figures = backend.figures()
    assert figures["state"] == "idle"
    assert figures["committed"] == 1
    assert figures["primary"] == pair.primary.address


async def test_a_checkpoint_of_qemu_s_own_is_reported(pair: FakePair, running: Running) -> None:
    async with running() as (backend, proxy):
        await pair.secondary.set_running(False)
        await pair.primary.set_running(False)
        await until(lambda: backend.figures()["state"] == COPYING)
        await pair.secondary.set_running(True)
        await pair.primary.set_running(True)
        await proxy.wait_for("committed 1")
        await backend.request(request())  # for the same epoch: it is made
    assert proxy.reports == ["begun", "paused 1", "loaded 1", "committed 1"]
    assert pair.log == []


async def test_it_advises_an_interval_from_the_first_checkpoint_on(running: Running) -> None:
    async with running() as (backend, _):
        assert backend.advised_interval() == math.inf
        await backend.request(request())
        assert backend.advised_interval() == LONGEST


async def test_it_advises_none_where_the_operator_wants_none(running: Running) -> None:
    async with running(adaptive_interval=False) as (backend, _):
        await backend.request(request())
        assert backend.advised_interval() == math.inf


@pytest.mark.parametrize("side", SIDE_NAMES[PRIMARY:])
async def test_a_monitor_that_hangs_up_is_called_again(
    pair: FakePair, running: Running, side: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as (backend, proxy):
        await backend.request(request())
        await getattr(pair, side).hang_up()
        await until(lambda: "is there again" in caplog.text)
        await backend.request(request(2))
        assert backend.ready
    assert proxy.reports[-1] == "committed 2"
    assert pair.fenced == []


async def test_a_monitor_behind_which_another_guest_is_now_is_none(pair: FakePair, running: Running) -> None:
    async with running() as (backend, proxy):
        await backend.request(request())
        pair.secondary.mode = "none"
        await pair.secondary.hang_up()
        await proxy.wait_for("lost secondary")
    assert pair.fenced == [f"secondary {pair.secondary.address}"]


# Making a pair


async def test_two_guests_become_a_pair(pair: FakePair, running: Running) -> None:
    pair.primary.reset("none", "running")
    pair.secondary.reset("none", "inmigrate")
    async with running(migrate_uri="unix:m"):
        assert pair.primary.mode == "primary"
    assert pair.log == [
        "primary: migrate-set-parameters",
        "primary: migrate-set-capabilities",
        "primary: migrate",
        "to unix:m",
    ]


async def test_a_pair_that_makes_checkpoints_by_itself_is_calmed(pair: FakePair, running: Running) -> None:
    pair.primary.delay = 20000
    async with running() as (_, proxy):
        assert pair.primary.delay == (1 << 32) - 1
    assert proxy.reports == []


async def test_a_primary_that_was_left_stopped_runs_on(pair: FakePair, running: Running) -> None:
    pair.primary.status = "paused"
    async with running():
        assert pair.primary.status == "running"
    assert pair.log == ["primary: cont"]


def set_modes(*modes: str) -> Callable[[FakePair], None]:
    def prepare(pair: FakePair) -> None:
        pair.primary.mode, pair.secondary.mode = modes

    return prepare


def fail_to_migrate(pair: FakePair) -> None:
    set_modes("none", "none")(pair)
    pair.secondary.status = "inmigrate"
    pair.migration = "failed"


def never_resume(pair: FakePair) -> None:
    pair.primary.status = "colo"


def be_broken(pair: FakePair) -> None:
    pair.primary.version = (10, 1, 0)


def lack_colo(pair: FakePair) -> None:
    pair.secondary.commands = ()


@pytest.mark.parametrize(
    ("prepare", "options", "message"),
    [
        (set_modes("none", "none"), {}, r"are not in COLO: name the secondary's -incoming address"),
        (set_modes("none", "none"), {"migrate_uri": "unix:m"}, r"waits for no migration: start it with -inc"),
        (set_modes("secondary", "primary"), {}, r"in COLO mode secondary and .* in mode primary"),
        (fail_to_migrate, {"migrate_uri": "unix:m"}, r"the migration to the secondary has failed"),
        (never_resume, {"migrate_timeout": SHORT}, r"are not a running pair within 0.05 s"),
        (be_broken, {}, r"COLO does not work in QEMU 10\.1\.0"),
        (lack_colo, {}, r"built without COLO"),
        (lambda _: None, {"fence": ()}, r"could not be fenced"),
    ],
)
async def test_what_is_no_pair_is_refused(
    pair: FakePair,
    make: Make,
    prepare: Callable[[FakePair], None],
    options: dict[str, Any],
    message: str,
) -> None:
    prepare(pair)
    if prepare is fail_to_migrate:
        pair.migrate = trio.lowlevel.checkpoint
    backend = make(**options)
    with pytest.raises(CheckpointerError, match=message):
        await backend.run(Proxy())
    assert not backend.ready


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"primary": "a.qmp"}, "$.checkpointer.primary"),
        ({"secondary": "tcp:host:4444", "fence": ()}, "$.checkpointer.fence"),
        ({"secondary": "tls:host:4444"}, "$.checkpointer.tls_dir"),
        ({"primary": "unix:a", "secondary": "unix:a"}, "$.checkpointer.secondary"),
        ({"checkpoint_timeout": Duration(0)}, "$.checkpointer.checkpoint_timeout"),
    ],
)
async def test_options_that_cannot_be_meant(make: Make, options: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**options)
    assert caught.value.path == path


# Losing a guest


async def test_the_primary_dies(pair: FakePair, running: Running) -> None:
    async with running() as (backend, proxy):
        await backend.request(request())
        await pair.primary.die()
        await proxy.wait_for("lost primary")
        assert pair.fenced[0] == f"primary {pair.primary.address}"
        assert f"secondary: {HEARTBEAT}" not in pair.log
        await backend.promote(SECONDARY)
        assert not backend.ready
        assert backend.figures()["state"] == OVER
        assert backend.figures()["primary"] == pair.secondary.address
    assert pair.log[-1] == f"secondary: {HEARTBEAT}"


async def test_a_secondary_behind_filters_loses_them_when_it_takes_over(
    pair: FakePair, running: Running
) -> None:
    async with running(secondary_filters=("f1", "f2")) as (backend, _):
        await backend.promote(SECONDARY)
    assert [line for line in pair.log if "without" in line] == [
        "secondary: without f1",
        "secondary: without f2",
    ]
    assert pair.log.index(f"secondary: {HEARTBEAT}") < pair.log.index("secondary: without f1")


async def test_what_a_secondary_behind_filters_had_said_goes_out_by_its_port(
    pair: FakePair, running: Running
) -> None:
    async with running(secondary_filters=("f1", "f2")) as (backend, _):
        await backend.promote(SECONDARY)
        assert backend.releases_by_port
    assert pair.secondary.filters == {}
    assert pair.secondary.added == [
        {
            "qom-type": "filter-redirector",
            "id": "colo-compare-out",
            "netdev": "n0",
            "queue": "rx",
            "indev": "said",
            "position": "head",
            "vnet_hdr_support": True,
        }
    ]


@pytest.mark.parametrize("refused", ["qom-get", "object-add"])
async def test_a_secondary_behind_filters_takes_over_without_a_way_out_by_its_port(
    pair: FakePair, running: Running, refused: str
) -> None:
    async with running(secondary_filters=("f1", "f2")) as (backend, _):
        pair.secondary.refuses.add(refused)
        await backend.promote(SECONDARY)
        assert not backend.releases_by_port
    assert pair.secondary.filters == {}
    assert pair.secondary.added == []


async def test_a_secondary_may_have_to_lose_filters_of_other_kinds_too(
    pair: FakePair, running: Running
) -> None:
    pair.secondary.filters["b0"] = {"type": "filter-buffer"}
    async with running(secondary_filters=("b0", "f1", "f2")) as (backend, _):
        await backend.promote(SECONDARY)
        assert backend.releases_by_port
    assert pair.secondary.filters == {}


async def test_a_primary_keeps_its_filters(pair: FakePair, running: Running) -> None:
    async with running(secondary_filters=("f1", "f2")) as (backend, _):
        await backend.abandon(SECONDARY)
    assert [line for line in pair.log if "without" in line] == []


async def test_the_secondary_dies(pair: FakePair, running: Running) -> None:
    async with running() as (backend, proxy):
        await pair.secondary.die()
        await proxy.wait_for("lost secondary")
        await backend.abandon(SECONDARY)
        assert not backend.ready
    assert pair.log == ["primary: cont", f"primary: {HEARTBEAT}"]


async def test_a_primary_whose_main_loop_is_locked_runs_on_when_its_secondary_is_dead(
    pair: FakePair, running: Running
) -> None:
    async def let_go() -> None:
        while not pair.fenced:
            await trio.lowlevel.checkpoint()
        pair.primary.locked = False

    async with running(heartbeat_timeout=Duration(0.5)) as (backend, _), trio.open_nursery() as nursery:
        await pair.primary.set_running(False)
        pair.primary.locked = True
        nursery.start_soon(let_go)
        await backend.abandon(SECONDARY)
    assert pair.primary.status == "running"
    assert pair.log == ["primary: cont", f"primary: {HEARTBEAT}"]


@pytest.mark.parametrize(("who", "side"), [("primary", PRIMARY), ("secondary", SECONDARY)])
async def test_a_guest_hangs(pair: FakePair, running: Running, who: str, side: int) -> None:
    async with running(heartbeat_interval=SHORT, heartbeat_timeout=SHORT) as (backend, proxy):
        await backend.request(request())
        (pair.primary if side == PRIMARY else pair.secondary).hangs = True
        await proxy.wait_for(f"lost {who}")
    assert [line.split()[0] for line in pair.fenced] == [who]


async def test_nothing_is_done_while_neither_answers(
    pair: FakePair, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(heartbeat_interval=SHORT, heartbeat_timeout=SHORT) as (backend, proxy):
        await backend.request(request())
        pair.primary.hangs = pair.secondary.hangs = True
        await until(lambda: "no monitor answers (the primary silent, the secondary silent)" in caplog.text)
        pair.primary.hangs = pair.secondary.hangs = False
        await backend.request(request(2))
        assert proxy.reports[-1] == "committed 2"
    assert pair.fenced == []


async def test_a_hung_primary_is_not_fenced_before_anybody_could_take_over(
    pair: FakePair, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(heartbeat_interval=SHORT, heartbeat_timeout=SHORT) as (_, proxy):
        pair.primary.hangs = True
        await until(lambda: "the secondary could not take over yet" in caplog.text)
        assert proxy.reports == []
    assert pair.fenced == []


async def test_the_secondary_hangs_in_mid_checkpoint(pair: FakePair, running: Running) -> None:
    async def hang() -> None:
        await pair.secondary.set_running(False)
        pair.secondary.hangs = True

    pair.on_trigger = hang
    async with running(checkpoint_timeout=SHORT, heartbeat_timeout=Duration(0.3)) as (backend, proxy):
        await backend.request(request())
        await proxy.wait_for("lost secondary")
        assert proxy.reports == ["paused 1", "failed 1, secondary spoilt", "lost secondary"]
        await backend.abandon(SECONDARY)
        assert pair.primary.status == "running"
    assert pair.log[-2:] == ["primary: cont", f"primary: {HEARTBEAT}"]


async def test_who_is_to_blame_is_found_when_the_other_one_has_taken_over(
    pair: FakePair, running: Running
) -> None:
    """The dead primary's place is the survivor's by then, which must not be taken for it."""
    async with running(heartbeat_timeout=Duration(0.3)) as (backend, proxy):
        await backend.request(request())
        pair.primary.hangs = True
        await pair.secondary.tell("COLO_EXIT", mode="secondary", reason="error")
        await until(lambda: backend._watch._examining)
        await backend.promote(SECONDARY)
        await until(lambda: not backend._watch._examining)
        assert proxy.reports[-1] == "committed 1"
    assert len(pair.fenced) == 1


async def test_the_connection_of_the_pair_breaks(pair: FakePair, running: Running) -> None:
    async with running() as (_, proxy):
        await pair.primary.tell("COLO_EXIT", mode="primary", reason="error")
        await proxy.wait_for("lost secondary")
    assert [line.split()[0] for line in pair.fenced] == ["secondary"]


async def test_the_primary_hangs_while_the_secondary_s_main_loop_waits_for_it(
    pair: FakePair, running: Running
) -> None:
    async def hang() -> None:
        await pair.secondary.set_running(False)
        pair.secondary.locked = True
        pair.primary.hangs = True
        await until(lambda: pair.fenced != [])
        pair.secondary.locked = False
        await pair.secondary.tell("COLO_EXIT", mode="secondary", reason="error")

    async with running(heartbeat_interval=SHORT, heartbeat_timeout=Duration(0.2)) as (backend, proxy):
        await backend.request(request(1))
        pair.on_trigger = hang
        await backend.request(request(2))
        await proxy.wait_for("lost primary")
    assert proxy.reports[-2:] == ["failed 2, secondary intact", "lost primary"]
    assert [line.split()[0] for line in pair.fenced] == ["primary"]


async def test_a_long_load_is_no_hang(pair: FakePair, running: Running) -> None:
    asked = trio.Event()

    async def load() -> None:
        await pair.secondary.set_running(False)
        pair.secondary.locked = True
        await asked.wait()
        pair.secondary.locked = False
        await pair.secondary.set_running(True)
        await pair.primary.set_running(True)

    pair.on_trigger = load
    async with running(heartbeat_interval=SHORT, heartbeat_timeout=SHORT) as (backend, proxy):
        pair.secondary.on_breath = asked.set
        await backend.request(request())
        assert proxy.reports == ["paused 1", "loaded 1", "committed 1"]
    assert pair.fenced == []


@pytest.mark.parametrize("loads", [True, False], ids=["new state", "old state"])
async def test_the_primary_dies_in_mid_checkpoint(pair: FakePair, running: Running, loads: bool) -> None:
    async def die() -> None:
        await pair.secondary.set_running(False)
        await pair.primary.die()
        await until(lambda: pair.fenced != [])
        if loads:
            await pair.secondary.set_running(True)
        await pair.secondary.tell("COLO_EXIT", mode="secondary", reason="error")

    async with running() as (backend, proxy):
        await backend.request(request(1))
        proxy.reports.clear()
        pair.on_trigger = die
        await backend.request(request(2))
        await proxy.wait_for("lost primary")
    outcome = ["loaded 2", "committed 2"] if loads else ["failed 2, secondary intact"]
    assert proxy.reports == ["paused 2", *outcome, "lost primary"]


async def test_the_survivor_s_monitor_breaks_off(
    pair: FakePair, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as (backend, proxy):
        await backend.promote(SECONDARY)
        await pair.secondary.die()
        await until(lambda: "nothing is known any more of the only guest left" in caplog.text)
    assert proxy.reports == []  # whether it lives only its port can tell
    assert len(pair.fenced) == 1


# No split brain


async def test_nobody_is_promoted_when_the_fence_fails(pair: FakePair, running: Running) -> None:
    async with running(fence=("/bin/sh", "-c", "echo no power switch >&2; exit 1")) as (backend, proxy):
        await backend.request(request())
        with pytest.raises(PromotionFailed, match=r'fence program "/bin/sh" exited with 1: no power switch'):
            await backend.promote(SECONDARY)
        with pytest.raises(CheckpointerError, match="no power switch"):
            await backend.abandon(SECONDARY)
        assert backend.ready
        await backend.request(request(2))
        assert proxy.reports[-1] == "committed 2"
    assert [line for line in pair.log if HEARTBEAT in line] == []


async def test_a_hung_primary_that_cannot_be_fenced_may_come_back(
    pair: FakePair, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"heartbeat_interval": SHORT, "heartbeat_timeout": SHORT, "fence": ("/bin/false",)}
    async with running(**options) as (backend, proxy):
        await backend.request(request())
        pair.primary.hangs = True
        await until(lambda: "cannot be fenced" in caplog.text)
        pair.primary.hangs = False
        await backend.request(request(2))
        assert proxy.reports[-1] == "committed 2"
    assert [line for line in pair.log if HEARTBEAT in line] == []


async def test_a_pair_is_dissolved_once(pair: FakePair, running: Running) -> None:
    async with running() as (backend, _):
        await backend.promote(SECONDARY)
        with pytest.raises(PromotionFailed, match="there is no pair any more"):
            await backend.promote(SECONDARY)
    assert pair.fenced == [f"primary {pair.primary.address}"]
