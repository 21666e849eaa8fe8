"""Lost guests and promotions in virtual time: `colo_compare.failover` beside the real core."""

import math
from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Final

from colo_compare.core.sides import PRIMARY, SECONDARY
from colo_compare.errors import CheckpointerError, PromotionFailed
from colo_compare.simulate.port import LOST, Port
from colo_compare.simulate.schedule import Steps

if TYPE_CHECKING:
    from colo_compare.simulate.shell import Shell


class Failover:
    """Handles lost sides and promotions, one at a time."""

    def __init__(self, shell: "Shell") -> None:
        self._shell: Final = shell
        self.promoting = False
        self.losses: Final[deque[tuple[Port, str]]] = deque()

    def report(self, port: Port, why: str) -> None:
        """Note that a guest's port, or the guest, is lost."""
        if port.failure or self._shell.dead:
            return
        port.failure = why
        self.losses.append((port, why))
        self._shell.backend_changed()

    def run(self) -> Steps:
        """Handle losses, one by one."""
        while True:
            while self.losses and not self.promoting:
                port, why = self.losses.popleft()
                if port.role == SECONDARY:
                    self._lose_secondary(port)
                elif port.role == PRIMARY:
                    yield from self._lose_primary(port, why)
            yield self._shell.schedule.now + 0.01 if self.losses else math.inf

    def _lose_secondary(self, port: Port) -> None:
        port.role = LOST
        self._shell.secondary = None
        self._shell.proxy.lose_secondary(self._shell.schedule.now)
        self._shell.perform()
        self._shell.start_process(self._abandon())

    def _abandon(self) -> Steps:
        backend = self._shell.backend  # a new secondary brings one of its own
        self._shell.forget()
        while self._shell.attempt is not None and not self._shell.attempt.over:
            yield math.inf
        if backend is not None:
            yield from backend.abandon()

    def _lose_primary(self, port: Port, why: str) -> Steps:
        obstacle = self._obstacle()
        if obstacle:
            self._shell.end(f"the primary is gone ({why}), and nothing can take over: {obstacle}")
            return
        try:
            yield from self._promote(port)
        except CheckpointerError as error:
            self._shell.end(f"the primary is gone ({why}), and the secondary could not take over: {error}")

    def promote(self) -> None:
        """Move the service to the secondary by an operator's decision."""
        if not self._shell.dead and not self._obstacle() and not self.promoting:
            self._shell.start_process(self._operator_promotes())

    def _operator_promotes(self) -> Steps:
        try:
            yield from self._promote(self._shell.primary)
        except CheckpointerError as error:
            if not self._shell.primary.failure:
                self.report(self._shell.primary, f"it was killed for a promotion that failed: {error}")

    def _promote(self, old: Port) -> Steps:
        shell = self._shell
        self.promoting = True
        try:
            known = yield from self._conclude()
            if not known:
                raise PromotionFailed("the checkpoint under way came to no result")
            assert shell.backend is not None
            yield from shell.backend.promote()
            obstacle = self._obstacle()
            if obstacle:
                raise PromotionFailed(f"nothing can take over any more: {obstacle}")
            secondary = shell.secondary
            assert secondary is not None
            shell.observer.promoted()
            shell.proxy.promote(shell.schedule.now)
            actions = shell.proxy.take_actions()
            shell.primary, shell.secondary = secondary, None
            secondary.role, old.role = PRIMARY, LOST
            shell.forget()
            shell.send_all(actions, "promotion")
            shell.finish(actions)
        finally:
            self.promoting = False
            self._shell.alarm.look()

    def _conclude(self) -> Generator[float, None, bool]:
        """Bring the checkpoint under way to its end, before a promotion; say whether its result is known."""
        shell = self._shell
        limit = shell.schedule.now + shell.settings.checkpoint_timeout
        while shell.epoch_asked is not None and not shell.intact() and shell.schedule.now < limit:
            yield limit
        if shell.epoch_asked is not None and shell.intact():
            shell.failed(shell.epoch_asked, "cancelled by a promotion", secondary_intact=True)
        known = shell.epoch_asked is None
        shell.forget()
        while shell.attempt is not None and not shell.attempt.over:
            yield math.inf
        return known

    def _obstacle(self) -> str:
        shell = self._shell
        if shell.secondary is None:
            return f"there is no secondary (mode {shell.proxy.mode})"
        if shell.secondary.failure:
            return f"the secondary is lost: {shell.secondary.failure}"
        if not shell.proxy.protected:
            return "the secondary is not equal to the primary"
        return ""
