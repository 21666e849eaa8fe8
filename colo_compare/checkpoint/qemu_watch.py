"""Life and death of the guests of a QEMU pair: who lives, who is to blame, and who is dead for sure."""

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import trio

from colo_compare.checkpoint.qemu_blame import LIVES, blame, is_well
from colo_compare.checkpoint.qemu_guest import COLO_NONE, RUNNING, QemuGuest
from colo_compare.checkpoint.qemu_sequence import COPYING
from colo_compare.core.sides import PRIMARY, SECONDARY, SIDE_NAMES
from colo_compare.errors import CheckpointerError, MonitorError

if TYPE_CHECKING:
    from colo_compare.checkpoint.qemu import QemuCheckpointer

logger: Final = logging.getLogger(__name__)


class Watch:
    """Watches the guests of one backend."""

    def __init__(self, backend: "QemuCheckpointer") -> None:
        self._backend = backend
        self._lost: set[QemuGuest] = set()
        self._examining = False

    async def over(self, guest: QemuGuest) -> None:
        """Look whether a guest lives, until it does not."""
        while not self._is_lost(guest):
            with trio.move_on_after(self._backend.options.heartbeat_interval):
                await guest.wait_until_gone()
            if guest.dead:
                await self._lose(guest, "")
            elif guest.monitor.gone.is_set():
                if not await self._return_to(guest) and not await self._suspect(guest):
                    return
            elif (
                self._backend.ready
                and not is_well(await guest.vitality(), copying=self._copying)
                and not guest.monitor.gone.is_set()  # lost while it was asked: that is looked at above
            ):
                await self._suspect(guest)

    async def _suspect(self, guest: QemuGuest) -> bool:
        """Find out whether a guest that does not answer is to blame; False: there is nobody else."""
        if self._is_lost(guest):
            return True
        if not self._backend.ready:
            logger.error("nothing is known any more of the only guest left: %s", guest.address)
            return False
        await self.examine("its monitor does not answer", None)
        await trio.sleep(self._backend.options.heartbeat_interval)
        return True

    async def _return_to(self, guest: QemuGuest) -> bool:
        """Connect again to a guest whose monitor was lost, though it may live; say whether it is the same.

        What it told meanwhile is lost, so it is asked.
        """
        backend = self._backend
        side = backend.side_of(guest)
        if side is None:
            return False
        sequence = backend.sequence if backend.ready else None
        if sequence is not None:
            sequence.lost_sight(side)
        try:
            monitor = await guest.connect_again(backend.options.tls_dir)
        except MonitorError as error:
            logger.info("%s", error)
            return False
        await guest.monitor.aclose()
        guest.monitor = monitor
        backend.read(guest)
        try:
            mode, status = await guest.colo_mode(), await guest.status()
        except MonitorError as error:
            logger.info("%s", error)
            return False
        if mode != (COLO_NONE if sequence is None else SIDE_NAMES[side]):
            logger.error("%s: it was in COLO as %s, and is as %s now", guest.address, SIDE_NAMES[side], mode)
            await monitor.aclose()
            return False
        logger.warning("%s: the connection to its monitor was lost, and is there again", guest.address)
        if sequence is not None:
            backend.add(sequence.returned(side, status == RUNNING, time.time(), trio.current_time()))
        return True

    @property
    def _copying(self) -> bool:
        return self._backend.sequence is not None and self._backend.sequence.state == COPYING

    def _is_lost(self, guest: QemuGuest) -> bool:
        return guest in self._lost or self._backend.side_of(guest) is None

    async def examine(self, detail: str, guilty: int | None) -> None:
        """Find out which guest does not work, and lose it.

        `guilty`: the side to lose when both answer, for the pair does not work all the same.
        """
        if self._examining or not self._backend.ready:
            return
        self._examining = True
        try:
            guests = dict(self._backend.guests)  # while they are asked, one may take the other's place
            side = await self._find_guilty(guests, guilty)
            if side is not None:
                await self._lose(guests[side], detail)
        finally:
            self._examining = False

    async def _find_guilty(self, guests: Mapping[int, QemuGuest], otherwise: int | None) -> int | None:
        for side, guest in guests.items():
            if guest.dead:
                return side
        answers: dict[int, str] = {}

        async def ask(side: int) -> None:
            answers[side] = await guests[side].vitality()
            if side == PRIMARY and answers[side] == LIVES and otherwise == SECONDARY:
                nursery.cancel_scope.cancel()  # whatever the secondary says

        async with trio.open_nursery() as nursery:
            for side in guests:
                nursery.start_soon(ask, side)
        for side, guest in guests.items():
            if guest.dead:
                return side
        if answers[PRIMARY] == answers.get(SECONDARY, LIVES) == LIVES:
            return otherwise
        side_to_blame = blame(answers[PRIMARY], answers[SECONDARY], copying=self._copying)
        if side_to_blame is None:
            # The machine, or the way to it, may be what hangs. Whoever comes back first shows it.
            logger.error(
                "no monitor answers (the primary %s, the secondary %s): nothing is done before one does",
                answers[PRIMARY],
                answers[SECONDARY],
            )
            return None
        if side_to_blame == SECONDARY or self._backend.can_take_over:
            return side_to_blame
        logger.error("the primary's monitor does not answer, and the secondary could not take over yet")
        return None

    async def _lose(self, guest: QemuGuest, detail: str) -> None:
        """Make sure that a guest is dead, then say so."""
        side = self._backend.side_of(guest)
        if side is None or guest in self._lost:
            return
        self._lost.add(guest)
        why = f"{guest.address}: {'its process has ended' if guest.dead else detail}"
        if self._backend.sequence is None or not self._backend.ready:
            await self._backend.handlers.guest_lost(side, why)  # the last one: nobody takes its place
            return
        try:
            await guest.fence.fence(side)
        except CheckpointerError:
            logger.exception("the %s (%s) cannot be fenced", SIDE_NAMES[side], why)
            if side == PRIMARY:
                self._lost.discard(guest)  # it may still come back; until then nothing may take its place
                return
            # The proxy can still cut it off from the clients, and the primary can serve them.
        if self._backend.side_of(guest) != side:
            return  # meanwhile the pair was dissolved, and there may be another one
        self._backend.add(self._backend.sequence.lost(side, why, trio.current_time()))
