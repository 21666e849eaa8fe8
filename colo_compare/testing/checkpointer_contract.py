"""What any checkpointer must pass, a third party's too.

::

    async def test_my_checkpointer() -> None:
        await check_checkpointer(lambda: MyCheckpointer(MyOptions(...)))

It plays the proxy: runs the backend, asks for checkpoints with handlers that take their time, cancels a
request in the middle, and tries what the capabilities promise and what they rule out. It needs guests that a
checkpoint succeeds on; `make_failing` and `make_unable` give it backends for the other cases, and
`new_secondary` brings another guest, where the backend can protect again.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import trio
from trio.testing import wait_all_tasks_blocked

from colo_compare.checkpoint.contract import Capabilities, Checkpointer, Figures, NewSecondary
from colo_compare.core.actions import CheckpointRequest
from colo_compare.core.settings import BYPASS, OBSERVE, PROTECT
from colo_compare.core.sides import PRIMARY, SECONDARY
from colo_compare.errors import CheckpointerError, ConfigError, PromotionFailed

Make = Callable[[], Checkpointer]
Bring = Callable[[Checkpointer], Awaitable[NewSecondary]]


async def check_checkpointer(
    make: Make,
    *,
    make_failing: Make | None = None,
    make_unable: Make | None = None,
    new_secondary: Bring | None = None,
    patience: float = 10.0,
) -> None:
    """Check a backend against checkpoint.contract.

    `make` gives a new backend, connected to nothing yet, whose checkpoints succeed. `make_failing` gives one
    whose checkpoints fail, `make_unable` one that cannot reach what it needs. `new_secondary` starts another
    guest for a backend, whose `options` are those in force, and says what the operator would say of it; it
    must be given for a backend that can protect again. `patience` is in seconds: how long one step may take.
    Raises AssertionError that says what the contract asks for.
    """
    await _check_before_run(make())
    await _check_checkpoints(make, patience)
    await _check_cancelled_request(make, patience)
    await _check_promotion(make, patience)
    await _check_abandoning(make, patience)
    await _check_protection(make, new_secondary, patience)
    if make_failing is not None:
        await _check_failing(make_failing, patience)
    if make_unable is not None:
        await _check_unable(make_unable(), patience)


class _Handlers:
    """The proxy's side: keeps every report, and sees when the backend does not wait for it."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities
        self._busy: str | None = None
        self.reports: list[str] = []
        self.mistakes: list[str] = []  # not raised: the backend might swallow it
        self.epoch = 1
        self.first = trio.Event()  # the first report has come
        self.gate = trio.Event()  # reports are handled only when it is set
        self.gate.set()
        self.ended = trio.Event()  # committed or failed was handled

    @property
    def busy(self) -> bool:
        """Whether a report is being handled."""
        return self._busy is not None

    async def begun(self) -> int:
        if not self._capabilities.starts_by_itself:
            self.mistakes.append("it called begun(), but its capabilities say starts_by_itself = False")
        await self._handle("begun", self.epoch)
        return self.epoch

    async def paused(self, epoch: int) -> None:
        if not self._capabilities.reports_pause:
            self.mistakes.append("it called paused(), but its capabilities say reports_pause = False")
        await self._handle("paused", epoch)

    async def loaded(self, epoch: int) -> None:
        if not self._capabilities.reports_load:
            self.mistakes.append("it called loaded(), but its capabilities say reports_load = False")
        await self._handle("loaded", epoch)

    async def committed(self, epoch: int, figures: Figures) -> None:
        self.mistakes.extend(_wrong_figures(figures))
        await self._handle("committed", epoch)
        self.ended.set()

    async def failed(self, epoch: int, detail: str, *, secondary_intact: bool) -> None:
        if not detail or "\n" in detail:
            self.mistakes.append(f"the detail of failed() must be one line of text, not {detail!r}")
        await self._handle("failed", epoch)
        self.ended.set()

    async def guest_lost(self, side: int, detail: str) -> None:
        if side not in {PRIMARY, SECONDARY}:
            self.mistakes.append(f"guest_lost() takes PRIMARY or SECONDARY, not {side!r}")
        self.mistakes.append(f"it lost a guest in the middle of the check: {detail}")
        await trio.lowlevel.checkpoint()

    async def _handle(self, report: str, epoch: int) -> None:
        if self._busy is not None:
            self.mistakes.append(
                f"it reported {report} before {self._busy} had been handled: await the handlers"
            )
        if epoch != self.epoch:
            self.mistakes.append(f"it reported {report} for epoch {epoch}, but was asked for {self.epoch}")
        self._busy = report
        self.reports.append(report)
        self.first.set()
        try:
            await self.gate.wait()
            # Long enough for a backend that does not wait for us to get ahead of us.
            await wait_all_tasks_blocked(0.01)
        finally:
            self._busy = None

    def next_request(self, epoch: int) -> CheckpointRequest:
        """Forget what was, and give the request for an epoch."""
        self.epoch = epoch
        self.reports.clear()
        self.first = trio.Event()
        self.ended = trio.Event()
        return CheckpointRequest(epoch, ("payload", "timeout"), "tcp 10.0.0.1:80 10.0.0.2:40000")


async def _check_before_run(backend: Checkpointer) -> None:
    _expect(
        type(backend).Options.__struct_config__.forbid_unknown_fields,
        "Options must have forbid_unknown_fields=True, so that a misspelt option is refused",
    )
    _expect(isinstance(backend.capabilities, Capabilities), "capabilities must be a contract.Capabilities")
    _expect(not backend.ready, "ready must be false before run()")
    for mode in (PROTECT, OBSERVE, BYPASS):
        try:
            backend.check_mode(mode)
        except ConfigError as error:
            _expect(
                error.path.startswith("$.checkpointer"),
                f"check_mode({mode}) must name a path below $.checkpointer",
            )
    handlers = _Handlers(backend.capabilities)
    try:
        await backend.request(handlers.next_request(1))
    except CheckpointerError:
        return
    raise AssertionError("request() before run() must raise CheckpointerError")


async def _check_checkpoints(make: Make, patience: float) -> None:
    async with _running(make(), patience) as (backend, handlers):
        for epoch in (1, 2, 3):
            await _checkpoint(backend, handlers, epoch, patience)
            expected = _expected_reports(backend.capabilities)
            _expect(
                handlers.reports == expected,
                f"a checkpoint that succeeds must report {expected}, it reported {handlers.reports}",
            )
        _expect(backend.ready, "ready must stay true between checkpoints")
        _check_figures(backend.figures())


async def _check_cancelled_request(make: Make, patience: float) -> None:
    async with _running(make(), patience) as (backend, handlers):
        handlers.gate = trio.Event()
        request = handlers.next_request(1)
        returned = False
        with _within(patience, "a request must report something, and end when it is cancelled"):
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    nonlocal returned
                    await backend.request(request)
                    returned = True

                nursery.start_soon(ask)
                await handlers.first.wait()
                seen = len(handlers.reports)
                nursery.cancel_scope.cancel()
                handlers.gate.set()  # now, so that a backend that reports in spite of it is heard, not stuck
        if returned:  # it works in the background, out of reach of a cancellation: let it finish
            with _within(patience, "a request must end with committed() or failed()"):
                await handlers.ended.wait()
        await wait_all_tasks_blocked(0.01)
        while handlers.busy:  # a backend's own task reports: its report must be over before the next request
            await wait_all_tasks_blocked(0.01)
        _expect(
            returned or len(handlers.reports) == seen,
            f"a request that was cancelled must report nothing more, it reported {handlers.reports[seen:]}",
        )
        await _checkpoint(backend, handlers, 1, patience)
        _expect(handlers.reports[-1] == "committed", "a request after a cancelled one must succeed")


async def _check_promotion(make: Make, patience: float) -> None:
    async with _running(make(), patience) as (backend, handlers):
        await _checkpoint(backend, handlers, 1, patience)
        can = backend.capabilities.can_promote
        try:
            with _within(patience, "promote() must return or raise PromotionFailed"):
                await backend.promote(SECONDARY)
        except PromotionFailed:
            _expect(not can, "promote() failed, but its capabilities say can_promote = True")
        else:
            _expect(
                can, "promote() must raise PromotionFailed where the capabilities say can_promote = False"
            )


async def _check_abandoning(make: Make, patience: float) -> None:
    async with _running(make(), patience) as (backend, handlers):
        await _checkpoint(backend, handlers, 1, patience)
        with _within(patience, "abandon() must return"):
            await backend.abandon(SECONDARY)


async def _check_protection(make: Make, bring: Bring | None, patience: float) -> None:
    backend = make()
    if not backend.capabilities.can_protect:
        return  # the proxy does not ask then
    if bring is None:
        raise AssertionError("its capabilities say can_protect = True: give the check `new_secondary`")
    try:
        await backend.protect(NewSecondary("secondary", "memory:new", backend.options))
    except CheckpointerError:
        pass
    else:
        raise AssertionError("protect() before run() must raise CheckpointerError")
    losses = (PRIMARY, SECONDARY) if backend.capabilities.can_promote else (SECONDARY,)
    for side in losses:
        await _check_lives(make, bring, side, patience)


async def _check_lives(make: Make, bring: Bring, lost: int, patience: float) -> None:
    """Lose a guest, and protect the other one again, twice."""
    async with _running(make(), patience) as (backend, handlers):
        await _checkpoint(backend, handlers, 1, patience)
        for epoch in (2, 3):
            with _within(patience, "promote() and abandon() must return"):
                await (backend.promote(SECONDARY) if lost == PRIMARY else backend.abandon(SECONDARY))
            new = await bring(backend)
            with trio.CancelScope() as scope:
                scope.cancel()  # nobody waits any longer: the guest runs alone as before
                await backend.protect(new)
            if scope.cancelled_caught:
                new = await bring(backend)
                with _within(patience, "protect() must return when there is a pair again"):
                    await backend.protect(new)
            _expect(backend.ready, "ready must be true when protect() has returned")
            _expect(backend.options == new.options, "protect() must put the options that it gets in force")
            await _checkpoint(backend, handlers, epoch, patience)
            expected = _expected_reports(backend.capabilities)
            _expect(
                handlers.reports == expected,
                f"a checkpoint of a new pair must report {expected}, it reported {handlers.reports}",
            )


async def _check_failing(make: Make, patience: float) -> None:
    async with _running(make(), patience) as (backend, handlers):
        for _ in range(2):  # the same epoch again: it did not begin
            await _checkpoint(backend, handlers, 1, patience)
            before = handlers.reports[:-1]
            _expect(
                handlers.reports[-1] == "failed"
                and before == [r for r in ("paused", "loaded") if r in before],
                f"a checkpoint that fails must report failed once, and last, it reported {handlers.reports}",
            )


async def _check_unable(backend: Checkpointer, patience: float) -> None:
    handlers = _Handlers(backend.capabilities)
    try:
        with _within(patience, "run() must raise CheckpointerError when it cannot reach what it needs"):
            await backend.run(handlers)
    except CheckpointerError:
        _expect(not backend.ready, "ready must be false after run() has failed")
    else:
        raise AssertionError("run() must raise CheckpointerError when it cannot reach what it needs")


async def _checkpoint(backend: Checkpointer, handlers: _Handlers, epoch: int, patience: float) -> None:
    """Ask for a checkpoint, and wait until it is over and nothing more comes."""
    request = handlers.next_request(epoch)
    with _within(patience, "a request must end with committed() or failed()"):
        await backend.request(request)
        await handlers.ended.wait()
    await wait_all_tasks_blocked(0.01)


@asynccontextmanager
async def _running(backend: Checkpointer, patience: float) -> AsyncIterator[tuple[Checkpointer, _Handlers]]:
    """Run a backend until the end of the block, and raise what it or the block did wrong."""
    handlers = _Handlers(backend.capabilities)
    problem: Exception | None = None

    async def run() -> None:
        nonlocal problem
        try:
            await backend.run(handlers)
        except Exception as error:
            problem = error
        else:
            problem = AssertionError("run() must serve until it is cancelled, it returned")
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        try:
            await _until_ready(backend, patience)
            yield backend, handlers
        except Exception as error:
            problem = problem or error  # raised below: the nursery would make a group of it
        nursery.cancel_scope.cancel()
    if handlers.mistakes:
        raise AssertionError("; ".join(handlers.mistakes)) from problem
    if problem is not None:
        raise problem
    _expect(not backend.ready, "ready must be false when run() has been cancelled")


@contextmanager
def _within(patience: float, demand: str) -> Iterator[None]:
    try:
        with trio.fail_after(patience):
            yield
    except trio.TooSlowError:
        raise AssertionError(f"{demand} within {patience:g} s") from None


async def _until_ready(backend: Checkpointer, patience: float) -> None:
    with trio.move_on_after(patience):
        while not backend.ready:  # noqa: ASYNC110 - the contract has no event for it
            await trio.sleep(0.001)
    _expect(backend.ready, f"ready must turn true within {patience:g} s of run()")


def _expected_reports(capabilities: Capabilities) -> list[str]:
    reports = ["paused"] if capabilities.reports_pause else []
    if capabilities.reports_load:
        reports.append("loaded")
    return [*reports, "committed"]


def _wrong_figures(figures: Figures) -> list[str]:
    mistakes = []
    for name in ("pause", "bytes", "pages"):
        value: object = getattr(figures, name)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0
        ):
            mistakes.append(f"the figure {name} must be a number from 0 up or None, not {value!r}")
    return mistakes


def _check_figures(figures: Mapping[str, object]) -> None:
    for name, value in figures.items():
        _expect(
            isinstance(value, (int, float, str, bool)),
            f"figures() must map names to numbers, texts or booleans, not '{name}' to {value!r}",
        )


def _expect(condition: bool, demand: str) -> None:
    if not condition:
        raise AssertionError(demand)
