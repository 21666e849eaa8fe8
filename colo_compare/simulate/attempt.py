"""One checkpoint, step by step, in virtual time: `checkpoint.memory.attempt` beside the real `Outgoing`."""

import math
from collections.abc import Generator
from typing import Final

from colo_compare.checkpoint.memory.page_map import Run
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
from colo_compare.core.sides import PRIMARY
from colo_compare.errors import CheckpointerError, CheckpointFailed
from colo_compare.simulate.backend import Backend, Session
from colo_compare.simulate.schedule import Steps

_OPEN: Final = (AT_REQUESTED, AT_READY, AT_SYNCED, AT_RECEIVED)


class Attempt:
    """Makes one checkpoint and reports it."""

    def __init__(self, backend: Backend, epoch: int) -> None:
        """Begin it."""
        self._backend: Final = backend
        self._epoch = epoch
        self._runs: list[Run] = []
        self._unheard = False  # cancelled: nothing more is reported
        self._shielded = False
        self.over = False
        backend.busy = True
        self._process: Final = backend.start(self._run())

    def cancel(self) -> None:
        """Report nothing more, and end as soon as that leaves both guests with a state."""
        self._unheard = True
        if not self._shielded:
            self._process.cancel()

    def _run(self) -> Steps:
        backend = self._backend
        try:
            try:
                session = yield from backend.session_after(None)
                yield from self._send(session)
                intact = yield from self._apply(session)
            except CheckpointerError as error:
                self._fail(str(error), intact=True)
                return
            if intact is not None:
                self._fail(session.outgoing.failure, intact=intact)
                return
            yield from self._conclude(session)
        finally:
            backend.busy = False
            self.over = True

    def _fail(self, detail: str, *, intact: bool) -> None:
        if not self._unheard:
            self._backend.handlers.failed(self._epoch, detail, secondary_intact=intact)

    def _send(self, session: Session) -> Steps:
        backend = self._backend
        outgoing = session.outgoing
        try:
            session.say(outgoing.request(backend.schedule.now))
            yield from backend.until(session, AT_READY)
            device_state = yield from self._stop_primary()
            try:
                session.look()
                self._runs = session.backlog.take_all()
                if backend.wiring.reports_steps:
                    backend.handlers.paused(self._epoch)
                session.transfer(self._runs, copy=False)
                session.say(outgoing.sync(device_state, backend.schedule.now))
                yield from backend.until(session, AT_RECEIVED)
            finally:
                if outgoing.state != AT_RECEIVED:
                    self._take_back(session)
                backend.primary.resume()
        except BaseException:
            self._take_back(session)
            raise
        if outgoing.state != AT_RECEIVED:
            raise CheckpointFailed(f"the checkpoint was refused: {outgoing.failure}")

    def _stop_primary(self) -> Generator[float, None, bytes]:
        backend = self._backend
        seat = backend.primary
        hangs = seat.hangs_until - backend.schedule.now
        if hangs > 0:
            limit = backend.schedule.now + min(hangs, backend.wiring.timeout)
            while backend.schedule.now < limit:
                yield limit
        if not seat.alive or hangs >= backend.wiring.timeout:
            if backend.committed and seat.alive:
                seat.kill()
                backend.handlers.guest_lost(PRIMARY, "it does not stop")
            raise CheckpointerError("the primary does not stop")
        return seat.pause()

    def _take_back(self, session: Session) -> None:
        if session.outgoing.state in _OPEN:
            session.say(session.outgoing.abort())
        session.backlog.put_back(self._runs)
        self._runs = []

    def _apply(self, session: Session) -> Generator[float, None, bool | None]:
        """Decide for the new state, and wait for what becomes of it.

        Gives None when the state was applied, else whether the secondary has its old one, complete.
        """
        backend = self._backend
        outgoing = session.outgoing
        number = outgoing.number
        session.say(outgoing.apply(backend.schedule.now))
        self._shielded = True
        try:
            yield from backend.until(session, AT_APPLIED)
        except CheckpointFailed:
            intact = yield from self._ask_again(session, number)
            return intact
        finally:
            self._shielded = False
        return None if outgoing.state == AT_APPLIED else not outgoing.spoilt

    def _ask_again(self, session: Session, number: int) -> Generator[float, None, bool | None]:
        try:
            after = (yield from self._backend.session_after(session)).outgoing
        except CheckpointFailed:
            return False
        applied = (after.applied_session, after.applied_number)
        return None if applied == (session.outgoing.session, number) else True

    def _conclude(self, session: Session) -> Steps:
        backend = self._backend
        outgoing = session.outgoing
        if not self._unheard:
            if backend.wiring.reports_steps:
                backend.handlers.loaded(self._epoch)
            backend.committed += 1
            backend.handlers.committed(self._epoch)
        if outgoing.state == AT_APPLIED:
            session.say(outgoing.resume(backend.schedule.now))
            self._shielded = True
            while outgoing.state not in (AT_IDLE, AT_BROKEN, AT_ENDED):
                yield math.inf
