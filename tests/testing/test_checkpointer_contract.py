"""Each broken backend here breaks the contract in one way; the check must say which."""

import dataclasses
import re
from collections.abc import Mapping

import msgspec
import pytest
import trio
import trio.testing

from colo_compare.checkpoint.contract import (
    Capabilities,
    Checkpointer,
    CheckpointHandlers,
    Figures,
    NewSecondary,
)
from colo_compare.core.actions import CheckpointRequest
from colo_compare.core.sides import SECONDARY
from colo_compare.errors import CheckpointerError, ConfigError, PromotionFailed, ProtectionFailed
from colo_compare.testing.checkpointer_contract import check_checkpointer


class NoOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Good(Checkpointer):
    """Keeps the contract: works in the background, reports everything, promotes."""

    Options = NoOptions
    capabilities = Capabilities(
        reports_pause=True,
        reports_load=True,
        copies_state=True,
        can_promote=True,
        can_fence=True,
        starts_by_itself=False,
    )

    def __init__(self) -> None:
        self.handlers: CheckpointHandlers | None = None
        self._send, self._receive = trio.open_memory_channel[int](10)

    async def run(self, handlers: CheckpointHandlers) -> None:
        self.handlers = handlers
        try:
            async for epoch in self._receive:
                await self.checkpoint(handlers, epoch)
        finally:
            self.handlers = None

    @property
    def ready(self) -> bool:
        return self.handlers is not None

    async def request(self, request: CheckpointRequest) -> None:
        if self.handlers is None:
            raise CheckpointerError("not running")
        await self._send.send(request.epoch)

    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        await handlers.paused(epoch)
        await handlers.loaded(epoch)
        await handlers.committed(epoch, Figures(pause=0.1))

    async def promote(self, side: int) -> None:
        await trio.lowlevel.checkpoint()

    async def abandon(self, side: int) -> None:
        await trio.lowlevel.checkpoint()

    def figures(self) -> Mapping[str, int | float | str | bool]:
        return {"state": "good"}


class Failing(Good):
    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        await handlers.paused(epoch)
        await handlers.failed(epoch, "no", secondary_intact=True)


class Unable(Good):
    async def run(self, handlers: CheckpointHandlers) -> None:
        raise CheckpointerError("nobody is there")


async def test_a_good_backend_passes() -> None:
    await check_checkpointer(Good, make_failing=Failing, make_unable=Unable)


class LooseOptions(Good):
    class Loose(msgspec.Struct):
        pass

    Options = Loose  # type: ignore[assignment]  # another class than Good's, by intent


class ReadyTooSoon(Good):
    @property
    def ready(self) -> bool:
        return True


class NeverReady(Good):
    @property
    def ready(self) -> bool:
        return False


class RequestBeforeRun(Good):
    async def request(self, request: CheckpointRequest) -> None:
        await self._send.send(request.epoch)


class StrangePath(Good):
    def check_mode(self, mode: str) -> None:
        raise ConfigError("$.proxy.mode", "not with me")


class NoCapabilities(Good):
    capabilities = None  # type: ignore[assignment]  # the mistake under test


class SkipsPause(Good):
    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        await handlers.loaded(epoch)
        await handlers.committed(epoch, Figures())


class LoadsFirst(Good):
    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        await handlers.loaded(epoch)
        await handlers.paused(epoch)
        await handlers.committed(epoch, Figures())


class CommitsTwice(Good):
    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        await super().checkpoint(handlers, epoch)
        await handlers.committed(epoch, Figures())


class CommitsAndFails(Good):
    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        await super().checkpoint(handlers, epoch)
        await handlers.failed(epoch, "no", secondary_intact=True)


class NeverEnds(Good):
    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        await handlers.paused(epoch)


class Silent(Good):
    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        await trio.lowlevel.checkpoint()


class WrongEpoch(Good):
    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        await super().checkpoint(handlers, epoch + 1)


class DoesNotWait(Good):
    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handlers.paused, epoch)
            await trio.lowlevel.checkpoint()
            nursery.start_soon(handlers.loaded, epoch)
            await trio.testing.wait_all_tasks_blocked()
        await handlers.committed(epoch, Figures())


class UnstatedPause(Good):
    capabilities = Capabilities(False, True, True, True, True, False)


class UnstatedLoad(Good):
    capabilities = Capabilities(True, False, True, True, True, False)


class BeginsByItself(Good):
    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        await handlers.begun()
        await super().checkpoint(handlers, epoch)


class LosesGuest(Good):
    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        await handlers.guest_lost(SECONDARY, "gone")
        await super().checkpoint(handlers, epoch)


class LosesStranger(Good):
    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        await handlers.guest_lost(7, "gone")
        await super().checkpoint(handlers, epoch)


class NegativeFigures(Good):
    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        await handlers.paused(epoch)
        await handlers.loaded(epoch)
        await handlers.committed(epoch, Figures(bytes=-1))


class StrangeFigures(Good):
    def figures(self) -> Mapping[str, int | float | str | bool]:
        return {"list": [1]}  # type: ignore[dict-item]  # the mistake under test


class Returns(Good):
    async def run(self, handlers: CheckpointHandlers) -> None:
        self.handlers = handlers
        await self.checkpoint(handlers, await self._receive.receive())


class Crashes(Good):
    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        raise CheckpointerError("lost my guests")


class StaysReady(Good):
    async def run(self, handlers: CheckpointHandlers) -> None:
        try:
            await super().run(handlers)
        finally:
            self.handlers = handlers


class CannotPromote(Good):
    async def promote(self, side: int) -> None:
        raise PromotionFailed("no")


class PromotesUnstated(Good):
    capabilities = Capabilities(True, True, True, False, True, False)


class HangsInPromote(Good):
    async def promote(self, side: int) -> None:
        await trio.sleep_forever()


class HangsInAbandon(Good):
    async def abandon(self, side: int) -> None:
        await trio.sleep_forever()


class InTheForeground(Good):
    """Makes the checkpoint in the request itself."""

    async def request(self, request: CheckpointRequest) -> None:
        if self.handlers is None:
            raise CheckpointerError("not running")
        await self.checkpoint(self.handlers, request.epoch)


class ReportsAfterCancellation(InTheForeground):
    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        try:
            await handlers.paused(epoch)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await handlers.failed(epoch, "cancelled", secondary_intact=True)
            raise
        await handlers.loaded(epoch)
        await handlers.committed(epoch, Figures())


async def test_a_good_backend_that_works_in_the_foreground_passes() -> None:
    await check_checkpointer(InTheForeground)


@pytest.mark.parametrize(
    ("backend", "demand"),
    [
        (LooseOptions, "Options must have forbid_unknown_fields=True"),
        (ReadyTooSoon, "ready must be false before run()"),
        (NeverReady, "ready must turn true within 5 s of run()"),
        (RequestBeforeRun, "request() before run() must raise CheckpointerError"),
        (StrangePath, "check_mode(protect) must name a path below $.checkpointer"),
        (NoCapabilities, "capabilities must be a contract.Capabilities"),
        (SkipsPause, "must report ['paused', 'loaded', 'committed'], it reported ['loaded', 'committed']"),
        (LoadsFirst, "it reported ['loaded', 'paused', 'committed']"),
        (CommitsTwice, "it reported ['paused', 'loaded', 'committed', 'committed']"),
        (CommitsAndFails, "it reported ['paused', 'loaded', 'committed', 'failed']"),
        (NeverEnds, "a request must end with committed() or failed() within 5 s"),
        (Silent, "a request must end with committed() or failed() within 5 s"),
        (WrongEpoch, "it reported paused for epoch 2, but was asked for 1"),
        (DoesNotWait, "it reported loaded before paused had been handled: await the handlers"),
        (UnstatedPause, "it called paused(), but its capabilities say reports_pause = False"),
        (UnstatedLoad, "it called loaded(), but its capabilities say reports_load = False"),
        (BeginsByItself, "it called begun(), but its capabilities say starts_by_itself = False"),
        (LosesGuest, "it lost a guest in the middle of the check: gone"),
        (LosesStranger, "guest_lost() takes PRIMARY or SECONDARY, not 7"),
        (NegativeFigures, "the figure bytes must be a number from 0 up or None, not -1"),
        (StrangeFigures, "figures() must map names to numbers, texts or booleans, not 'list' to [1]"),
        (Returns, "run() must serve until it is cancelled, it returned"),
        (StaysReady, "ready must be false when run() has been cancelled"),
        (CannotPromote, "promote() failed, but its capabilities say can_promote = True"),
        (PromotesUnstated, "promote() must raise PromotionFailed where"),
        (HangsInPromote, "promote() must return or raise PromotionFailed within 5 s"),
        (HangsInAbandon, "abandon() must return within 5 s"),
        (
            ReportsAfterCancellation,
            "a request that was cancelled must report nothing more, it reported ['failed']",
        ),
    ],
)
async def test_a_broken_backend_is_found_out(
    backend: type[Good], demand: str, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(AssertionError, match=re.escape(demand)):
        await check_checkpointer(backend, patience=5)


async def test_a_backend_that_gives_up_is_shown_with_its_own_words() -> None:
    with pytest.raises(CheckpointerError, match="lost my guests"):
        await check_checkpointer(Crashes)


class FailsTwice(Good):
    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        await handlers.failed(epoch, "no", secondary_intact=True)
        await handlers.failed(epoch, "no", secondary_intact=True)


class FailsWithoutWords(Good):
    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        await handlers.failed(epoch, "", secondary_intact=True)


@pytest.mark.parametrize(
    ("backend", "demand"),
    [
        (Good, "must report failed once, and last, it reported ['paused', 'loaded', 'committed']"),
        (FailsTwice, "must report failed once, and last, it reported ['failed', 'failed']"),
        (FailsWithoutWords, "the detail of failed() must be one line of text, not ''"),
    ],
)
async def test_a_broken_failure_is_found_out(backend: type[Good], demand: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(demand)):
        await check_checkpointer(Good, make_failing=backend)


class ReadyThoughUnable(Unable):
    @property
    def ready(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("backend", "demand"),
    [
        (Good, "run() must raise CheckpointerError when it cannot reach what it needs within 5 s"),
        (ReadyThoughUnable, "ready must be false after run() has failed"),
    ],
)
async def test_a_backend_that_hides_its_misery_is_found_out(
    backend: type[Good], demand: str, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(AssertionError, match=re.escape(demand)):
        await check_checkpointer(Good, make_unable=backend, patience=5)


# Protecting again


async def another(backend: Checkpointer) -> NewSecondary:
    """Bring a new guest."""
    await trio.lowlevel.checkpoint()
    return NewSecondary("secondary", "memory:new", Versioned(getattr(backend.options, "version", 0) + 1))


class Versioned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int = 0


class Again(Good):
    """Keeps the contract, and protects again."""

    Options = Versioned  # type: ignore[assignment]  # another class than Good's
    capabilities = dataclasses.replace(Good.capabilities, can_protect=True)

    def __init__(self) -> None:
        super().__init__()
        self.options = Versioned()
        self.alone = False

    @property
    def ready(self) -> bool:
        return super().ready and not self.alone

    async def promote(self, side: int) -> None:
        self.alone = True
        await trio.lowlevel.checkpoint()

    async def abandon(self, side: int) -> None:
        self.alone = True
        await trio.lowlevel.checkpoint()

    async def protect(self, new: NewSecondary) -> None:
        await trio.lowlevel.checkpoint()
        if self.handlers is None:
            raise ProtectionFailed("not running")
        self.options = new.options
        self.alone = False


async def test_a_backend_that_protects_again_passes() -> None:
    await check_checkpointer(Again, new_secondary=another)


class ProtectsWhenNotRunning(Again):
    async def protect(self, new: NewSecondary) -> None:
        await trio.lowlevel.checkpoint()
        self.alone = False


class ReadyTooLate(Again):
    async def protect(self, new: NewSecondary) -> None:
        await super().protect(new)
        self.alone = True


class KeepsItsOptions(Again):
    async def protect(self, new: NewSecondary) -> None:
        before = self.options
        await super().protect(new)
        self.options = before


class HangsInProtect(Again):
    async def protect(self, new: NewSecondary) -> None:
        if self.handlers is not None:
            await trio.sleep_forever()
        await super().protect(new)


class ForgetsItsWork(Again):
    """Its new pair makes checkpoints that are none."""

    async def checkpoint(self, handlers: CheckpointHandlers, epoch: int) -> None:
        if self.options == Versioned():
            await super().checkpoint(handlers, epoch)
        else:
            await handlers.committed(epoch, Figures())


@pytest.mark.parametrize(
    ("backend", "demand"),
    [
        (ProtectsWhenNotRunning, "protect() before run() must raise CheckpointerError"),
        (ReadyTooLate, "ready must be true when protect() has returned"),
        (KeepsItsOptions, "protect() must put the options that it gets in force"),
        (HangsInProtect, "protect() must return when there is a pair again within 5 s"),
        (ForgetsItsWork, "a checkpoint of a new pair must report ['paused', 'loaded', 'committed'], it"),
    ],
)
async def test_a_broken_protection_is_found_out(
    backend: type[Again], demand: str, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(AssertionError, match=re.escape(demand)):
        await check_checkpointer(backend, new_secondary=another, patience=5)


async def test_a_backend_that_protects_again_must_be_given_another_guest() -> None:
    with pytest.raises(AssertionError, match="give the check `new_secondary`"):
        await check_checkpointer(Again)
