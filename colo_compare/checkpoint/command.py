"""The checkpointer that runs the operator's own programs.

Each program gets one JSON line on its standard input and the same in its environment, and tells by its exit
status how it went: docs/checkpointers.md has the whole protocol.
"""

import json
import os
import shutil
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
import trio

from colo_compare.checkpoint.contract import (
    Capabilities,
    Checkpointer,
    CheckpointHandlers,
    Figures,
    NewSecondary,
)
from colo_compare.checkpoint.program import Ending, Program
from colo_compare.core.actions import CheckpointRequest
from colo_compare.core.sides import PRIMARY, SECONDARY, SIDE_NAMES
from colo_compare.errors import CheckpointerError, ConfigError, PromotionFailed, ProtectionFailed
from colo_compare.quantities import Duration

# sysexits.h: EX_IOERR. "Failed, and the secondary may hold half of a state."
SECONDARY_SPOILT: Final = 74
# sysexits.h: EX_TEMPFAIL. "Failed, and the secondary still has its old state", also when it was told to stop.
SECONDARY_INTACT: Final = 75


class CommandOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of the `command` backend. A program is a list: its path, then its arguments; no shell."""

    checkpoint: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    promote: tuple[str, ...] = ()
    abandon: tuple[str, ...] = ()
    fence: tuple[str, ...] = ()
    protect: tuple[str, ...] = ()
    timeout: Duration = Duration(
        8
    )  # of `checkpoint`; below [proxy] checkpoint_timeout, so that its words are heard
    fence_timeout: Duration = Duration(30)  # of `promote`, `abandon` and `fence`
    protect_timeout: Duration = Duration(300)  # a whole guest may have to be copied
    kill_after: Duration = Duration(1)  # from SIGTERM to SIGKILL
    reports_pause: bool = False
    reports_load: bool = False
    copies_state: bool = True


class CommandCheckpointer(Checkpointer):
    """Runs a program for each checkpoint, promotion, farewell and new secondary."""

    Options = CommandOptions
    options: CommandOptions

    def __init__(self, options: CommandOptions) -> None:
        super().__init__(options)
        self._take(options)
        self._ports = {PRIMARY: SIDE_NAMES[PRIMARY], SECONDARY: SIDE_NAMES[SECONDARY]}  # names, by role
        self._handlers: CheckpointHandlers | None = None
        self._committed = 0
        self._failed = 0
        self._last_seconds = 0.0

    def _take(self, options: CommandOptions) -> None:
        """Put options in force. Raises ConfigError."""
        for key in ("timeout", "fence_timeout", "protect_timeout"):
            if not getattr(options, key):
                raise ConfigError(f"$.checkpointer.{key}", "must be longer than 0s")
        self.options = options
        self.capabilities = Capabilities(
            reports_pause=options.reports_pause,
            reports_load=options.reports_load,
            copies_state=options.copies_state,
            can_promote=bool(options.promote),
            can_fence=bool(options.fence),
            starts_by_itself=False,
            can_protect=bool(options.protect),
        )

    async def run(self, handlers: CheckpointHandlers) -> None:
        """Serve until cancelled. Raises CheckpointerError when a program is not there or not executable."""
        _check_programs(self.options)
        self._handlers = handlers
        try:
            await trio.sleep_forever()
        finally:
            self._handlers = None

    @property
    def ready(self) -> bool:
        """Whether `run` found every program."""
        return self._handlers is not None

    async def request(self, request: CheckpointRequest) -> None:
        """Run the checkpoint program to its end. Raises CheckpointerError before `run`."""
        if self._handlers is None:
            raise CheckpointerError("checkpointer command is not running: call run() first")
        checkpoint = _Checkpoint(self.options, request, self._guests(), self._handlers)
        failure = await checkpoint.run()
        self._last_seconds = checkpoint.seconds
        if failure is None:
            self._committed += 1
            await self._handlers.committed(request.epoch, checkpoint.figures)
        else:
            self._failed += 1
            await self._handlers.failed(request.epoch, failure, secondary_intact=checkpoint.secondary_intact)

    async def promote(self, side: int) -> None:
        """Fence the other guest, then run the promote program. Raises PromotionFailed."""
        if not self.options.promote:
            raise PromotionFailed("no promote program is configured: set $.checkpointer.promote")
        try:
            await self._fence(SECONDARY if side == PRIMARY else PRIMARY)
            await self._run("promote", side=SIDE_NAMES[side])
        except CheckpointerError as error:
            raise PromotionFailed(f"the {SIDE_NAMES[side]} was not promoted: {error}") from None
        self._ports = {PRIMARY: self._ports[side], SECONDARY: ""}

    async def abandon(self, side: int) -> None:
        """Fence that guest, then run the abandon program. Raises CheckpointerError when one of them fails."""
        await self._fence(side)
        if self.options.abandon:
            await self._run("abandon", side=SIDE_NAMES[side])
        self._ports = {PRIMARY: self._ports[SECONDARY if side == PRIMARY else PRIMARY], SECONDARY: ""}

    async def protect(self, new: NewSecondary) -> None:
        """Run the protect program for the new secondary. Raises ProtectionFailed, or ConfigError."""
        options, before = new.options, self.options
        assert isinstance(options, CommandOptions)
        if self._handlers is None:
            raise ProtectionFailed("checkpointer command is not running")
        if not options.protect:
            raise ProtectionFailed("no protect program is configured: set $.checkpointer.protect")
        for key in ("reports_pause", "reports_load", "copies_state"):
            if getattr(options, key) != getattr(before, key):
                raise ConfigError(f"$.checkpointer.{key}", "is fixed while the proxy runs")
        self._take(options)
        ports = self._ports
        # Nobody tells a backend without a promote program that the primary is another one.
        others = [SIDE_NAMES[side] for side in (PRIMARY, SECONDARY) if SIDE_NAMES[side] != new.port]
        self._ports = {PRIMARY: others[0], SECONDARY: new.port}
        try:
            _check_programs(options)
            await self._run("protect", url=new.url)
        except BaseException as error:
            self._take(before)
            self._ports = ports
            if isinstance(error, CheckpointerError):
                raise ProtectionFailed(str(error)) from None
            raise

    def _guests(self) -> dict[str, str]:
        return {"primary_port": self._ports[PRIMARY], "secondary_port": self._ports[SECONDARY]}

    def figures(self) -> Mapping[str, int | float | str | bool]:
        """Give how often the checkpoint program succeeded and failed, and how long it ran last."""
        return {"committed": self._committed, "failed": self._failed, "last_seconds": self._last_seconds}

    async def _fence(self, side: int) -> None:
        if self.options.fence:
            await self._run("fence", side=SIDE_NAMES[side])

    async def _run(self, event: str, **words: str) -> None:
        options = self.options
        argv: tuple[str, ...] = getattr(options, event)
        description = {"event": event, **words, **self._guests()}
        program = Program(
            argv,
            _environment(description),
            timeout=options.protect_timeout if event == "protect" else options.fence_timeout,
            kill_after=options.kill_after,
        )
        ending = await program.run(_line(description), _ignore, keep_open=False)
        if ending.status != 0 or ending.timed_out:
            raise CheckpointerError(f'the {event} program "{argv[0]}" {ending.describe()}')


def _check_programs(options: CommandOptions) -> None:
    """Raise CheckpointerError for a program that is not there or not executable."""
    for key in ("checkpoint", "promote", "abandon", "fence", "protect"):
        argv: tuple[str, ...] = getattr(options, key)
        if argv and shutil.which(argv[0]) is None:
            raise CheckpointerError(
                f'checkpointer command: the {key} program "{argv[0]}" is not there or not executable; '
                f"correct $.checkpointer.{key} or the file's mode"
            )


class _Violation(Exception):
    """A program said something that has no meaning, or none here."""


class _Checkpoint:
    """One run of the checkpoint program, and what it has reported."""

    def __init__(
        self,
        options: CommandOptions,
        request: CheckpointRequest,
        guests: dict[str, str],
        handlers: CheckpointHandlers,
    ) -> None:
        self._options = options
        self._epoch = request.epoch
        self._handlers = handlers
        self._paused = False
        self._loaded = False
        self.figures = Figures()
        self.secondary_intact = True
        self.seconds = 0.0
        self._description = {
            "event": "checkpoint",
            "epoch": request.epoch,
            "reasons": list(request.reasons),
            "flow": request.flow,
            **guests,
        }
        self._program = Program(
            options.checkpoint,
            _environment(self._description),
            timeout=options.timeout,
            kill_after=options.kill_after,
        )

    async def run(self) -> str | None:
        """Give None when it is committed, else why not."""
        name = f'the checkpoint program "{self._options.checkpoint[0]}"'
        keep_open = self._options.reports_pause or self._options.reports_load
        try:
            ending = await self._program.run(_line(self._description), self._listen, keep_open=keep_open)
            self.seconds = ending.seconds
            if ending.status == 0 and not ending.timed_out:
                self._check_complete()
                return None
        except _Violation as violation:
            self.secondary_intact = False  # what it did meanwhile is anybody's guess
            return f"{name} {violation}"
        self.secondary_intact = not self._loaded and _leaves_intact(ending)
        return f"{name} {ending.describe()}"

    def _check_complete(self) -> None:
        for event, key, seen in (
            ("paused", "reports_pause", self._paused),
            ("loaded", "reports_load", self._loaded),
        ):
            if getattr(self._options, key) and not seen:
                report = f'{{"event":"{event}"}}'
                raise _Violation(
                    f"exited with 0 without {report}: print it, or set $.checkpointer.{key} = false"
                )

    async def _listen(self, line: bytes) -> None:
        """Take a line of output: a report if it is a JSON object, else chatter."""
        if not line.lstrip().startswith(b"{"):
            return
        try:
            report: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise _Violation(f"printed a broken report: {error}") from None
        event = report.pop("event", None)
        if event == "paused":
            await self._report_paused()
        elif event == "loaded":
            await self._report_loaded()
        elif event == "figures":
            self.figures = _read_figures(report)
        else:
            raise _Violation(f'printed the event "{event}"; known: paused, loaded, figures')

    async def _report_paused(self) -> None:
        if not self._options.reports_pause:
            raise _Violation('printed {"event":"paused"}: set $.checkpointer.reports_pause = true for it')
        if self._paused or self._loaded:
            raise _Violation('printed {"event":"paused"} twice, or after {"event":"loaded"}')
        self._paused = True
        await self._handlers.paused(self._epoch)
        await self._program.write(b"drained\n")

    async def _report_loaded(self) -> None:
        if not self._options.reports_load:
            raise _Violation('printed {"event":"loaded"}: set $.checkpointer.reports_load = true for it')
        if self._loaded or self._paused != self._options.reports_pause:
            raise _Violation('printed {"event":"loaded"} twice, or before {"event":"paused"}')
        self._loaded = True
        await self._handlers.loaded(self._epoch)
        await self._program.write(b"drained\n")


def _leaves_intact(ending: Ending) -> bool:
    """Say whether the secondary still has its old state after a program that failed."""
    if ending.timed_out:
        return ending.status == SECONDARY_INTACT
    return ending.status is None or (ending.status > 0 and ending.status != SECONDARY_SPOILT)


def _read_figures(report: dict[str, Any]) -> Figures:
    known = {key: report.pop(key, None) for key in ("pause", "bytes", "pages")}
    try:
        detail = msgspec.convert(report, dict[str, int | float | str])
        return msgspec.convert({**known, "detail": detail or None}, Figures)
    except msgspec.ValidationError as error:
        raise _Violation(f"printed figures that are none: {error}") from None


def _line(description: Mapping[str, Any]) -> bytes:
    return json.dumps(description).encode() + b"\n"


def _environment(description: Mapping[str, Any]) -> dict[str, str]:
    """Give our own environment, and the description as COLO_EVENT, COLO_EPOCH, COLO_REASONS (with commas)."""
    environ = dict(os.environ)
    for key, value in description.items():
        environ[f"COLO_{key.upper()}"] = ",".join(value) if isinstance(value, list) else str(value)
    return environ


async def _ignore(_line: bytes) -> None:
    """Let chatter pass."""
