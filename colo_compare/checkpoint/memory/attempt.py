"""One checkpoint, step by step. Cancelled at any point, it leaves both guests running."""

from typing import TYPE_CHECKING, Final

import trio

from colo_compare.checkpoint.contract import Figures
from colo_compare.checkpoint.memory.page_map import Run, count_pages
from colo_compare.checkpoint.memory.sender import Sender
from colo_compare.checkpoint.memory.states import (
    AT_APPLIED,
    AT_BROKEN,
    AT_ENDED,
    AT_IDLE,
    AT_READY,
    AT_RECEIVED,
    AT_REQUESTED,
    AT_SYNCED,
)
from colo_compare.errors import CheckpointerError, CheckpointFailed

if TYPE_CHECKING:
    from colo_compare.checkpoint.memory.backend import MemoryCheckpointer

_OPEN: Final = (AT_REQUESTED, AT_READY, AT_SYNCED, AT_RECEIVED)


class Attempt:
    """Makes one checkpoint and reports it."""

    def __init__(self, backend: "MemoryCheckpointer", epoch: int) -> None:
        self._backend = backend
        self._handlers = backend.handlers
        self._epoch = epoch
        self._runs: list[Run] = []
        self._bytes: list[int] = []  # sent in the pause, by channel
        self._paused_at = 0.0
        self._pause = 0.0

    async def run(self) -> None:
        """Make it, and report committed or failed; nothing more once it is cancelled."""
        backend = self._backend
        try:
            sender = await backend.session()
            await self._send(sender)
            intact = await self._apply(sender)
        except CheckpointerError as error:
            await self._fail(str(error), intact=True)
            return
        if intact is not None:
            await self._fail(sender.outgoing.failure, intact=intact)
            return
        await self._conclude(sender)

    async def _send(self, sender: Sender) -> None:
        """Stop the primary, send what is left, and let it run on when all of it is there.

        From RECEIVED on the secondary's end has a complete new state, so the primary need not wait for it to
        be applied: what it says from now on belongs to the next epoch.
        """
        outgoing = sender.outgoing
        try:
            sender.say(outgoing.request(trio.current_time()))
            await sender.until(AT_READY)
            self._paused_at = trio.current_time()
            device_state = await self._stop_primary()
            try:
                self._look()
                await trio.lowlevel.checkpoint_if_cancelled()  # before a report, which must not come then
                await self._handlers.paused(self._epoch)
                await self._send_rest(sender, device_state)
            finally:
                if outgoing.state != AT_RECEIVED:
                    self._take_back(sender)
                await self._let_primary_run()
                self._pause = trio.current_time() - self._paused_at
        except BaseException:
            self._take_back(sender)
            raise

    async def _stop_primary(self) -> bytes:
        try:
            return await self._backend.guest.pause()
        except CheckpointerError as error:
            await self._backend.lose_primary(str(error))
            raise

    def _look(self) -> None:
        """Find out what is left to send: at once, as a page table does not outlive its process."""
        backlog = self._backend.backlog
        backlog.note(self._backend.tracker.look())
        self._runs = backlog.take_all()

    async def _let_primary_run(self) -> None:
        """Let it run, if it still can: a checkpoint whose primary dies when all is sent is none the worse."""
        with trio.CancelScope(shield=True):
            try:
                await self._backend.guest.resume()
            except CheckpointerError as error:
                await self._backend.lose_primary(str(error))

    async def _send_rest(self, sender: Sender, device_state: bytes) -> None:
        before = [speaker.bytes for speaker in sender.speakers]
        await self._backend.transfer(sender, self._runs, copy=False)
        sender.say(sender.outgoing.sync(device_state, trio.current_time()))
        await sender.until(AT_RECEIVED)
        self._bytes = [speaker.bytes - start for speaker, start in zip(sender.speakers, before, strict=True)]

    def _take_back(self, sender: Sender) -> None:
        """End a checkpoint that is not decided: the old state stays, and the pages go with the next one."""
        if sender.outgoing.state in _OPEN:
            sender.say(sender.outgoing.abort())
        self._backend.backlog.put_back(self._runs)
        self._runs = []

    async def _apply(self, sender: Sender) -> bool | None:
        """Decide for the new state, and wait for what becomes of it. The decision cannot be taken back.

        Gives None when the state was applied, else whether the secondary has its old one, complete.
        """
        outgoing = sender.outgoing
        number = outgoing.number
        sender.say(outgoing.apply(trio.current_time()))
        with trio.CancelScope(shield=True):
            try:
                await sender.until(AT_APPLIED)
            except CheckpointFailed:
                return await self._ask_again(sender, number)
        if outgoing.state == AT_APPLIED:
            return None
        return not outgoing.spoilt

    async def _ask_again(self, sender: Sender, number: int) -> bool | None:
        """Ask, in a new session, what became of a decision whose answer was lost."""
        session = sender.outgoing.session
        try:
            after = (await self._backend.session_after(sender)).outgoing
        except CheckpointFailed:
            return False
        return None if (after.applied_session, after.applied_number) == (session, number) else True

    async def _conclude(self, sender: Sender) -> None:
        outgoing = sender.outgoing
        backend = self._backend
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            await self._handlers.loaded(self._epoch)
            await self._handlers.committed(self._epoch, self._figures())
            backend.committed += 1
        finally:
            if outgoing.state == AT_APPLIED:
                sender.say(outgoing.resume(trio.current_time()))
                with trio.CancelScope(shield=True):
                    await _settle(sender)

    async def _fail(self, detail: str, *, intact: bool) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._backend.failed += 1
        await self._handlers.failed(self._epoch, detail, secondary_intact=intact)

    def _figures(self) -> Figures:
        backend = self._backend
        before = backend.presented
        detail: dict[str, int | float | str] = {
            "pages_before": sum(pages for pages, _ in before),
            "bytes_before": sum(size for _, size in before),
        }
        for index, size in enumerate(self._bytes):
            detail[f"channel_{index}_bytes"] = size
            detail[f"channel_{index}_bytes_before"] = before[index][1]
        backend.presented = [(0, 0)] * len(before)
        figures = Figures(
            pause=self._pause,
            bytes=sum(self._bytes),
            pages=count_pages(self._runs),
            detail=detail,
        )
        backend.last = {
            "last_pause_seconds": self._pause,
            "last_pages": figures.pages or 0,
            "last_bytes": figures.bytes or 0,
            **{f"last_{key}": value for key, value in detail.items() if not isinstance(value, str)},
        }
        return figures


async def _settle(sender: Sender) -> None:
    """Wait until the secondary runs, or the session is broken: then it runs as well."""
    while sender.outgoing.state not in (AT_IDLE, AT_BROKEN, AT_ENDED):
        await sender.changed()
