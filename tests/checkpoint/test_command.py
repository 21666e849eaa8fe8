import json
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
import trio
import trio.testing

from colo_compare.checkpoint.command import CommandCheckpointer, CommandOptions
from colo_compare.checkpoint.contract import Checkpointer, Figures, NewSecondary
from colo_compare.core.actions import CheckpointRequest
from colo_compare.core.sides import PRIMARY, SECONDARY
from colo_compare.errors import CheckpointerError, ConfigError, PromotionFailed, ProtectionFailed
from colo_compare.quantities import Duration
from colo_compare.testing.checkpointer_contract import check_checkpointer

REQUEST = CheckpointRequest(7, ("payload", "timeout"), "tcp 10.0.0.1:80 10.0.0.2:40000")
# The first line of standard input is the description; each `read` after it waits for an answer.
START = "read description; "
PAUSED = """echo '{"event":"paused"}'; read answer; [ "$answer" = drained ] || exit 3; """
LOADED = """echo '{"event":"loaded"}'; read answer; [ "$answer" = drained ] || exit 4; """


class Reports(Protocol):
    seen: list[tuple[object, ...]]
    figures: Figures
    paused_event: trio.Event
    on_paused: Callable[[], None]


Running = Callable[[CommandOptions], AbstractAsyncContextManager[tuple[CommandCheckpointer, Reports]]]


def options(script: str, **others: Any) -> CommandOptions:
    return CommandOptions(checkpoint=("/bin/sh", "-c", script), **others)


@pytest.fixture(autouse=True)
def no_zombies() -> Iterator[None]:
    """Look for children that nobody has waited for, after each test."""
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


async def test_it_fulfils_the_contract() -> None:
    await check_checkpointer(
        lambda: CommandCheckpointer(options("exit 0")),
        make_failing=lambda: CommandCheckpointer(options("echo no >&2; exit 1")),
        make_unable=lambda: CommandCheckpointer(CommandOptions(checkpoint=("/no/such/program",))),
    )


async def another(backend: Checkpointer) -> NewSecondary:
    await trio.lowlevel.checkpoint()
    changed = msgspec.structs.replace(backend.options, protect=("/bin/sh", "-c", "exit 0"))
    return NewSecondary("primary", "packet:new", changed)


async def test_it_fulfils_the_contract_with_all_it_can_do() -> None:
    await check_checkpointer(
        lambda: CommandCheckpointer(
            options(
                START + PAUSED + LOADED,
                promote=("/bin/true",),
                abandon=("/bin/true",),
                fence=("/bin/true",),
                protect=("/bin/true",),
                reports_pause=True,
                reports_load=True,
            )
        ),
        new_secondary=another,
        make_failing=lambda: CommandCheckpointer(
            options(START + PAUSED + "exit 1", reports_pause=True, reports_load=True)
        ),
    )


async def test_the_program_is_told_what_is_asked_on_stdin_and_in_the_environment(
    running: Running, tmp_path: Path
) -> None:
    script = f"cat > {tmp_path}/stdin; env > {tmp_path}/env"
    async with running(options(script)) as (backend, reports):
        await backend.request(REQUEST)
    assert reports.seen == [("committed", 7)]
    lines = (tmp_path / "stdin").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "event": "checkpoint",
            "epoch": 7,
            "reasons": ["payload", "timeout"],
            "flow": "tcp 10.0.0.1:80 10.0.0.2:40000",
            "primary_port": "primary",
            "secondary_port": "secondary",
        }
    ]
    environment = (tmp_path / "env").read_text().splitlines()
    assert {line for line in environment if line.startswith("COLO_")} == {
        "COLO_EVENT=checkpoint",
        "COLO_EPOCH=7",
        "COLO_REASONS=payload,timeout",
        "COLO_FLOW=tcp 10.0.0.1:80 10.0.0.2:40000",
        "COLO_PRIMARY_PORT=primary",
        "COLO_SECONDARY_PORT=secondary",
    }
    assert f"PATH={os.environ['PATH']}" in environment


async def test_a_program_that_reads_nothing_is_no_trouble(running: Running) -> None:
    async with running(options("exec <&-; exit 0")) as (backend, reports):
        await backend.request(REQUEST)
    assert reports.seen == [("committed", 7)]


@pytest.mark.parametrize(
    ("script", "detail", "intact"),
    [
        ("echo one >&2; echo two >&2; exit 1", "exited with 1: one | two", True),
        ("exit 75", "exited with 75", True),
        ("echo disk full >&2; exit 74", "exited with 74: disk full", False),
        ("kill -KILL $$", "was ended by SIGKILL", False),
        ("for n in 1 2 3 4 5 6; do echo $n >&2; done; exit 1", "exited with 1: 3 | 4 | 5 | 6", True),
        (r"printf 'a\033[31mb\n\n  \377\n' >&2; exit 1", "exited with 1: a?[31mb | \ufffd", True),
    ],
)
async def test_the_exit_status_tells_what_became_of_the_secondary(
    running: Running, script: str, detail: str, intact: bool
) -> None:
    async with running(options(script)) as (backend, reports):
        await backend.request(REQUEST)
    assert reports.seen == [("failed", 7, f'the checkpoint program "/bin/sh" {detail}', intact)]


async def test_the_reports_of_a_program_reach_the_proxy_in_order(running: Running) -> None:
    script = (
        START
        + PAUSED
        + LOADED
        + """echo '{"event":"figures","pause":0.5,"bytes":4096,"pages":1,"mode":"fast"}'"""
    )
    async with running(options(script, reports_pause=True, reports_load=True)) as (backend, reports):
        await backend.request(REQUEST)
    assert reports.seen == [("paused", 7), ("loaded", 7), ("committed", 7)]
    assert reports.figures == Figures(pause=0.5, bytes=4096, pages=1, detail={"mode": "fast"})


async def test_a_report_without_a_newline_counts(running: Running) -> None:
    async with running(options("""printf '{"event":"figures","pages":3}'""")) as (backend, reports):
        await backend.request(REQUEST)
    assert reports.figures == Figures(pages=3)


async def test_chatter_is_ignored(running: Running) -> None:
    script = "echo copying...; head -c 300000 /dev/zero | tr '\\0' x; echo; echo '[1]'; " + START + PAUSED
    async with running(options(script, reports_pause=True)) as (backend, reports):
        await backend.request(REQUEST)
    assert reports.seen == [("paused", 7), ("committed", 7)]


@pytest.mark.parametrize(
    ("script", "extra", "problem"),
    [
        ("""echo '{"event":"pasued"}'""", {}, 'printed the event "pasued"; known: paused, loaded, figures'),
        ("""echo '{"event":"paused'""", {}, "printed a broken report: "),
        ("echo '{}'", {}, 'printed the event "None"; known'),
        (PAUSED, {}, 'printed {"event":"paused"}: set $.checkpointer.reports_pause = true for it'),
        (LOADED, {}, 'printed {"event":"loaded"}: set $.checkpointer.reports_load = true for it'),
        (PAUSED + PAUSED, {"reports_pause": True}, 'printed {"event":"paused"} twice'),
        (LOADED + LOADED, {"reports_load": True}, 'printed {"event":"loaded"} twice'),
        (
            LOADED + PAUSED,
            {"reports_pause": True, "reports_load": True},
            'printed {"event":"loaded"} twice, or before {"event":"paused"}',
        ),
        ("exit 0", {"reports_pause": True}, 'exited with 0 without {"event":"paused"}: print it, or set'),
        (PAUSED, {"reports_pause": True, "reports_load": True}, 'exited with 0 without {"event":"loaded"}'),
        ("""echo '{"event":"figures","pause":"long"}'""", {}, "printed figures that are none: Expected"),
        ("""echo '{"event":"figures","mode":[1]}'""", {}, "printed figures that are none: Expected"),
    ],
)
async def test_a_program_that_breaks_the_protocol_fails_and_spoils_the_secondary(
    running: Running, script: str, extra: dict[str, bool], problem: str
) -> None:
    async with running(options(START + script, **extra)) as (backend, reports):
        await backend.request(REQUEST)
    *_, (report, _, detail, intact) = reports.seen
    assert report == "failed"
    assert str(detail).startswith(f'the checkpoint program "/bin/sh" {problem}')
    assert intact is False


async def test_a_failure_after_the_load_leaves_no_old_state(running: Running) -> None:
    async with running(options(START + LOADED + "exit 75", reports_load=True)) as (backend, reports):
        await backend.request(REQUEST)
    assert reports.seen == [
        ("loaded", 7),
        ("failed", 7, 'the checkpoint program "/bin/sh" exited with 75', False),
    ]


async def test_a_program_that_takes_too_long_is_told_to_stop_and_may_say_that_nothing_happened(
    running: Running, mock_clock: trio.testing.MockClock
) -> None:
    # The program says when its trap is set; only then does the time pass.
    for status, intact in ((75, True), (1, False), (0, False)):
        script = f"trap 'echo undone >&2; exit {status}' TERM; {START} {PAUSED} sleep 1000 & wait"
        async with running(options(script, reports_pause=True)) as (backend, reports):
            reports.on_paused = lambda: mock_clock.jump(9)
            await backend.request(REQUEST)
        took = f"took too long (9.0 s) and exited with {status}: undone"
        assert reports.seen[-1] == ("failed", 7, f'the checkpoint program "/bin/sh" {took}', intact)


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[Callable[[], Awaitable[None]]]:
    """Give a function that waits until a program has written to the fifo `bell`."""
    os.mkfifo(tmp_path / "bell")
    descriptor = os.open(tmp_path / "bell", os.O_RDONLY | os.O_NONBLOCK)

    async def ring() -> None:
        await trio.lowlevel.wait_readable(descriptor)
        os.read(descriptor, 100)

    yield ring
    os.close(descriptor)


async def test_a_program_that_does_not_stop_is_killed_with_its_children(
    running: Running, mock_clock: trio.testing.MockClock, bell: Callable[[], Awaitable[None]], tmp_path: Path
) -> None:
    script = (
        f"trap 'echo > {tmp_path}/bell' TERM; (trap '' TERM; exec sleep 1000) & "
        f"echo $! > {tmp_path}/child; {START} {PAUSED} "
        "while :; do wait; done"
    )
    async with (
        running(options(script, reports_pause=True)) as (backend, reports),
        trio.open_nursery() as nursery,
    ):
        reports.on_paused = lambda: mock_clock.jump(8)
        nursery.start_soon(backend.request, REQUEST)
        await bell()  # SIGTERM has come
        mock_clock.jump(1)
    took = "took too long (9.0 s) and was ended by SIGKILL"
    assert reports.seen[-1] == ("failed", 7, f'the checkpoint program "/bin/sh" {took}', False)
    await dead(int((tmp_path / "child").read_text()))


async def dead(pid: int) -> None:
    """Wait for the end of a process that is not our child; it may be a zombie of somebody else's."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def test_a_cancelled_request_kills_its_program_and_reports_nothing(
    running: Running, tmp_path: Path
) -> None:
    script = f"sleep 1000 & echo $! > {tmp_path}/child; {START} {PAUSED} wait"
    async with running(options(script, reports_pause=True)) as (backend, reports):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.request, REQUEST)
            await reports.paused_event.wait()
            nursery.cancel_scope.cancel()
        assert reports.seen == [("paused", 7)]
        await dead(int((tmp_path / "child").read_text()))


async def test_an_error_of_the_proxy_s_handler_comes_out_as_it_is(running: Running) -> None:
    def break_down() -> None:
        raise ZeroDivisionError

    async with running(options(START + PAUSED + "exec sleep 1000", reports_pause=True)) as (backend, reports):
        reports.on_paused = break_down
        with pytest.raises(ZeroDivisionError):
            await backend.request(REQUEST)


async def test_a_child_left_behind_does_not_hold_up_the_commit(running: Running, tmp_path: Path) -> None:
    script = f'sleep 1000 & echo $! > {tmp_path}/child; echo \'{{"event":"figures","pages":1}}\''
    async with running(options(script)) as (backend, reports):
        await backend.request(REQUEST)
    assert reports.seen == [("committed", 7)]
    assert reports.figures == Figures(pages=1)
    os.kill(int((tmp_path / "child").read_text()), 9)


async def test_a_flood_of_errors_is_cut_to_its_end(running: Running) -> None:
    script = "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 1"
    async with running(options(script)) as (backend, reports):
        await backend.request(REQUEST)
    detail = str(reports.seen[0][2])
    assert len(detail) < 5000
    assert detail.endswith("xxxend")


@pytest.mark.parametrize("key", ["checkpoint", "promote", "abandon", "fence", "protect"])
async def test_a_program_that_is_not_there_is_told_at_the_start(
    key: str, tmp_path: Path, running: Running
) -> None:
    path = tmp_path / "program"
    programs: dict[str, Any] = {"checkpoint": ("/bin/true",), key: (str(path),)}
    backend = CommandCheckpointer(CommandOptions(**programs))
    message = re.escape(
        f'the {key} program "{path}" is not there or not executable; correct $.checkpointer.{key}'
    )
    async with running(options("exit 0")) as (_, reports):
        with pytest.raises(CheckpointerError, match=message):
            await backend.run(reports)  # type: ignore[arg-type]  # a part of the handlers
        path.write_text("#!/bin/sh\n")
        path.chmod(0o644)
        with pytest.raises(CheckpointerError, match=message):
            await backend.run(reports)  # type: ignore[arg-type]  # a part of the handlers
    assert not backend.ready


async def test_a_program_that_cannot_be_started_later_has_spoilt_nothing(
    running: Running, tmp_path: Path
) -> None:
    path = tmp_path / "program"
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o755)
    async with running(CommandOptions(checkpoint=(str(path),))) as (backend, reports):
        await backend.request(REQUEST)
    detail = f'the checkpoint program "{path}" cannot be started: No such file or directory'
    assert reports.seen == [("failed", 7, detail, True)]


@pytest.mark.parametrize("key", ["timeout", "fence_timeout", "protect_timeout"])
def test_a_program_needs_some_time(key: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"$.checkpointer.{key}: must be longer than 0s")):
        CommandCheckpointer(options("exit 0", **{key: Duration(0)}))


def test_its_capabilities_are_what_is_configured() -> None:
    capabilities = CommandCheckpointer(options("exit 0")).capabilities
    assert capabilities.copies_state
    assert not capabilities.can_promote
    assert not capabilities.can_fence
    assert not capabilities.can_protect
    assert not capabilities.reports_pause
    capabilities = CommandCheckpointer(
        options("exit 0", promote=("a",), fence=("b",), reports_pause=True, reports_load=True)
    ).capabilities
    assert capabilities.can_promote
    assert capabilities.can_fence
    assert capabilities.reports_pause
    assert capabilities.reports_load
    assert capabilities.copies_state
    partial = CommandCheckpointer(options("exit 0", copies_state=False))
    assert not partial.capabilities.copies_state


PORTS = '"primary_port": "primary", "secondary_port": "secondary"'


def noting(path: Path, event: str, status: int = 0) -> tuple[str, ...]:
    """Give a program that notes what it was asked."""
    script = (
        f'read line; echo "{event} $COLO_EVENT $COLO_SIDE $line" >> {path}; echo words >&2; exit {status}'
    )
    return ("/bin/sh", "-c", script)


async def test_a_promotion_fences_the_other_guest_first(running: Running, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    programs = options("exit 0", promote=noting(notes, "P"), fence=noting(notes, "F"))
    async with running(programs) as (backend, _):
        await backend.promote(SECONDARY)
    assert notes.read_text().splitlines() == [
        f'F fence primary {{"event": "fence", "side": "primary", {PORTS}}}',
        f'P promote secondary {{"event": "promote", "side": "secondary", {PORTS}}}',
    ]


async def test_nobody_is_promoted_beside_a_guest_that_could_not_be_fenced(
    running: Running, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    programs = options("exit 0", promote=noting(notes, "P"), fence=noting(notes, "F", status=1))
    message = 'the secondary was not promoted: the fence program "/bin/sh" exited with 1: words'
    async with running(programs) as (backend, _):
        with pytest.raises(PromotionFailed, match=re.escape(message)):
            await backend.promote(SECONDARY)
    assert notes.read_text().startswith("F fence primary")
    assert "promote" not in notes.read_text()


async def test_a_promotion_that_fails_says_why(running: Running, tmp_path: Path) -> None:
    programs = options("exit 0", promote=noting(tmp_path / "notes", "P", status=5))
    async with running(programs) as (backend, _):
        with pytest.raises(PromotionFailed, match='the promote program "/bin/sh" exited with 5: words'):
            await backend.promote(PRIMARY)


async def test_a_promotion_that_takes_too_long_fails(
    running: Running, mock_clock: trio.testing.MockClock, bell: Callable[[], Awaitable[None]], tmp_path: Path
) -> None:
    programs = options(
        "exit 0",
        promote=("/bin/sh", "-c", f"echo > {tmp_path}/bell; exec sleep 1000"),
        fence_timeout=Duration(3),
    )
    message = 'the promote program "/bin/sh" took too long (3.0 s) and was ended by SIGTERM'

    async def promote(backend: CommandCheckpointer) -> None:
        with pytest.raises(PromotionFailed, match=re.escape(message)):
            await backend.promote(SECONDARY)

    async with running(programs) as (backend, _), trio.open_nursery() as nursery:
        nursery.start_soon(promote, backend)
        await bell()
        mock_clock.jump(3)


async def test_without_a_promote_program_nobody_is_promoted(running: Running) -> None:
    async with running(options("exit 0")) as (backend, _):
        with pytest.raises(PromotionFailed, match=re.escape("set $.checkpointer.promote")):
            await backend.promote(SECONDARY)


async def test_an_abandoned_guest_is_fenced_first(running: Running, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    programs = options("exit 0", abandon=noting(notes, "A"), fence=noting(notes, "F"))
    async with running(programs) as (backend, _):
        await backend.abandon(SECONDARY)
    assert [line.partition(" {")[0] for line in notes.read_text().splitlines()] == [
        "F fence secondary",
        "A abandon secondary",
    ]


async def test_an_abandon_program_that_fails_says_why(running: Running, tmp_path: Path) -> None:
    programs = options("exit 0", abandon=noting(tmp_path / "notes", "A", status=1))
    async with running(programs) as (backend, _):
        with pytest.raises(CheckpointerError, match='the abandon program "/bin/sh" exited with 1: words'):
            await backend.abandon(SECONDARY)


# A new secondary


def newcomer(backend: CommandCheckpointer, port: str, **changes: Any) -> NewSecondary:
    return NewSecondary(port, f"packet:new-{port}", msgspec.structs.replace(backend.options, **changes))


async def test_each_program_is_told_behind_which_ports_the_guests_are(
    running: Running, tmp_path: Path
) -> None:
    def note(event: str) -> tuple[str, ...]:
        words = f"{event} $COLO_SIDE $COLO_URL ($COLO_PRIMARY_PORT, $COLO_SECONDARY_PORT)"
        return ("/bin/sh", "-c", f'echo "{words}" >> {tmp_path}/notes')

    programs = CommandOptions(
        checkpoint=note("checkpoint"),
        promote=note("promote"),
        abandon=note("abandon"),
        fence=note("fence"),
        protect=note("protect"),
    )
    async with running(programs) as (backend, reports):
        await backend.promote(SECONDARY)
        await backend.protect(newcomer(backend, "primary"))
        await backend.request(REQUEST)
        await backend.abandon(SECONDARY)
        await backend.protect(newcomer(backend, "primary"))
        await backend.promote(SECONDARY)
        await backend.protect(newcomer(backend, "secondary"))
    assert reports.seen == [("committed", 7)]
    assert (tmp_path / "notes").read_text().splitlines() == [
        "fence primary  (primary, secondary)",
        "promote secondary  (primary, secondary)",
        "protect  packet:new-primary (secondary, primary)",
        "checkpoint   (secondary, primary)",
        "fence secondary  (secondary, primary)",
        "abandon secondary  (secondary, primary)",
        "protect  packet:new-primary (secondary, primary)",
        "fence primary  (secondary, primary)",
        "promote secondary  (secondary, primary)",
        "protect  packet:new-secondary (primary, secondary)",
    ]


async def test_without_a_promote_program_it_still_knows_who_is_who(running: Running, tmp_path: Path) -> None:
    """The proxy does not ask a backend to promote that cannot."""
    note = ("/bin/sh", "-c", f'echo "$COLO_PRIMARY_PORT $COLO_SECONDARY_PORT" > {tmp_path}/note')
    async with running(options("exit 0", protect=note)) as (backend, _):
        await backend.protect(newcomer(backend, "primary"))
    assert (tmp_path / "note").read_text() == "secondary primary\n"


async def test_a_protect_program_that_fails_leaves_all_as_it_was(running: Running, tmp_path: Path) -> None:
    programs = options("exit 0", protect=noting(tmp_path / "notes", "P", status=1), fence=("/bin/true",))
    async with running(programs) as (backend, _):
        with pytest.raises(ProtectionFailed, match='the protect program "/bin/sh" exited with 1: words'):
            await backend.protect(newcomer(backend, "primary", timeout=Duration(5)))
        assert backend.options is programs
        await backend.protect(newcomer(backend, "primary", protect=("/bin/true",)))
        assert backend.options.protect == ("/bin/true",)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"protect": ("/no/such",)}, ProtectionFailed, 'the protect program "/no/such" is not there'),
        ({"protect": ()}, ProtectionFailed, "set $.checkpointer.protect"),
        ({"protect_timeout": Duration(0)}, ConfigError, "$.checkpointer.protect_timeout: must be longer"),
        ({"copies_state": False}, ConfigError, "$.checkpointer.copies_state: is fixed while the proxy runs"),
    ],
)
async def test_options_that_a_new_secondary_must_not_bring(
    running: Running, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    programs = options("exit 0", protect=("/bin/true",))
    async with running(programs) as (backend, _):
        with pytest.raises(error, match=re.escape(words)):
            await backend.protect(newcomer(backend, "primary", **change))
        assert backend.options is programs


async def test_a_protect_program_is_ended_when_nobody_waits_for_it(
    running: Running, bell: Callable[[], Awaitable[None]], tmp_path: Path
) -> None:
    programs = options("exit 0", protect=("/bin/sh", "-c", f"echo > {tmp_path}/bell; exec sleep 1000"))
    async with running(programs) as (backend, _), trio.open_nursery() as nursery:
        nursery.start_soon(backend.protect, newcomer(backend, "primary"))
        await bell()
        nursery.cancel_scope.cancel()


async def test_it_counts_what_happened(running: Running, tmp_path: Path) -> None:
    async with running(options(f"[ -e {tmp_path}/bad ] && exit 1; exit 0")) as (backend, _):
        await backend.request(REQUEST)
        await backend.request(REQUEST)
        (tmp_path / "bad").touch()
        await backend.request(REQUEST)
        figures = backend.figures()
    assert (figures["committed"], figures["failed"]) == (2, 1)
    assert isinstance(figures["last_seconds"], float)
