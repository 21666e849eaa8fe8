"""The shell round the real core, in virtual time: ports, gates, timers, checkpoints, failover.

It does what `loop` and `checkpointing` do, and is read beside them. Everything that happens in
the product between two awaits happens here in one call.
"""

import math
import random
from typing import Final

from colo_compare.core.actions import Actions, CheckpointRequest, Event, SideLost
from colo_compare.core.epochs import PAUSED
from colo_compare.core.proxy import Proxy
from colo_compare.core.settings import PROTECT, Settings
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY, SIDE_NAMES
from colo_compare.simulate.attempt import Attempt
from colo_compare.simulate.backend import Backend
from colo_compare.simulate.failover import Failover
from colo_compare.simulate.port import LOST, Port
from colo_compare.simulate.schedule import Alarm, Process, Schedule, Steps
from colo_compare.wire.frame import Frame, parse_frame

BATCH: Final = 64
"""Frames that are read at once, at most."""
_READ_DELAY: Final = 0.0001  # seconds from a frame's arrival to its being read, at most


class Observer:
    """Who looks at what passes the shell; the simulation's oracle. All of it may raise Contradiction."""

    def arrived(self, role: int, data: bytes) -> None:
        """Note that a frame is given to the core."""

    def released(self, data: bytes, kind: str) -> None:
        """Note that a frame goes to the client; `kind` is "" or "promotion"."""

    def mirrored(self, role: int, data: bytes) -> None:
        """Note that a frame goes to a guest, whose role this is."""

    def performed(self) -> None:
        """Note that the actions of one call of the core have been done."""

    def told(self, event: Event) -> None:
        """Note what the core tells."""

    def promoted(self) -> None:
        """Note that the secondary takes over now."""

    def ended(self, why: str) -> None:
        """Note that the proxy has ended: nothing is left that could go on."""


class Shell:
    """Runs one proxy between three ports, with one checkpointer. It lives until the proxy crashes."""

    def __init__(
        self,
        schedule: Schedule,
        settings: Settings,
        client: Port,
        primary: Port,
        secondary: Port | None,
        observer: Observer,
        chance: random.Random,
    ) -> None:
        self.schedule: Final = schedule
        self.settings: Final = settings
        self.proxy: Final = Proxy(settings, schedule.now)
        self.client: Final = client
        self.primary = primary
        self.secondary = secondary
        self.observer: Final = observer
        self.backend: Backend | None = None
        self.dead = False
        self.why_ended = ""
        self.failover: Final = Failover(self)
        self.draining = False  # a port is read whether or not there is room
        self._chance: Final = chance
        self._asked: CheckpointRequest | None = None
        self.epoch_asked: int | None = None  # of the checkpoint under way, until its result is known
        self.attempt: Attempt | None = None
        self.alarm: Final = Alarm(schedule, self._due, self._run_timers)
        self._processes: list[Process] = []

    def start(self) -> None:
        """Begin to serve."""
        self.proxy.start(self.schedule.now)
        self.perform()
        self.start_process(self.failover.run())
        for port in self._ports():
            self._read_soon(port)

    def start_process(self, steps: Steps) -> None:
        """Let something go on until the proxy crashes."""
        self._processes = [process for process in self._processes if not process.over]
        self._processes.append(Process(self.schedule, steps))

    def crash(self) -> None:
        """End as a process does that is killed."""
        self.dead = True
        self.alarm.off = True
        for process in self._processes:
            process.cancel()
        if self.backend is not None:
            self.backend.crash()
        for port in self._ports():
            port.arrived.clear()
            port.backlog.clear()
            port.reading = port.at_gate = False

    def end(self, why: str) -> None:
        """End, as nothing is left that could go on."""
        if not self.why_ended:
            self.why_ended = why
            self.dead = True
            self.alarm.off = True
            self.observer.ended(why)

    def _ports(self) -> list[Port]:
        ports = [self.client, self.primary]
        return ports if self.secondary is None else [*ports, self.secondary]

    # Frames in

    def arrive(self, port: Port, data: bytes) -> None:
        """Take a frame from a port's link."""
        if self.dead or port.role == LOST:
            return
        if len(port.arrived) >= port.room:
            port.overflow += 1
            return
        port.arrived.append(data)
        self._read_soon(port)

    def _read_soon(self, port: Port) -> None:
        if port.arrived and not port.reading and not self.dead:
            port.reading = True
            self.schedule.after(self._chance.random() * _READ_DELAY, self._read, port)

    def _read(self, port: Port) -> None:
        port.reading = False
        if self.dead or port.role == LOST or not port.arrived:
            return
        if not self._may_read(port):
            port.at_gate = True
            return
        batch = [port.arrived.popleft() for _ in range(min(BATCH, len(port.arrived)))]
        self.feed(port, batch)
        self._read_soon(port)

    def feed(self, port: Port, batch: list[bytes]) -> None:
        """Give frames to the core, and perform what follows."""
        role = port.role
        for data in batch:
            self.observer.arrived(role, data)
        inbound = role == CLIENT
        self.proxy.receive(role, [parse_frame(data, 0, inbound) for data in batch], self.schedule.now)
        self.perform()

    def _drain(self, port: Port) -> None:
        batch = list(port.arrived)
        port.arrived.clear()
        if batch:
            self.draining = True
            self.feed(port, batch)
            self.draining = False

    def _may_read(self, port: Port) -> bool:
        if port.role == CLIENT:
            if self.primary.backlog:
                return False
            if self.secondary is not None and self.secondary.backlog and self.proxy.mode == PROTECT:
                return False
        elif port.role == PRIMARY and self.client.backlog:
            return False
        return self.proxy.wants(port.role)

    def _open_gates(self) -> None:
        for port in self._ports():
            if port.at_gate and self._may_read(port):
                port.at_gate = False
                self._read_soon(port)

    # Actions out

    def perform(self) -> None:
        """Do what the core wants done."""
        actions = self.proxy.take_actions()
        self.send_all(actions, "")
        self.finish(actions)

    def send_all(self, actions: Actions, kind: str) -> None:
        """Send frames; `kind` is what the observer is told."""
        for frame in actions.to_client:
            self.observer.released(frame.data, kind)
        for frame in actions.to_primary:
            self.observer.mirrored(PRIMARY, frame.data)
        self._send(self.primary, actions.to_primary)
        if self.secondary is not None:
            for frame in actions.to_secondary:
                self.observer.mirrored(SECONDARY, frame.data)
            self._send(self.secondary, actions.to_secondary)
        self._send(self.client, actions.to_client)

    def finish(self, actions: Actions) -> None:
        """Do what is left of actions when their frames are sent."""
        for event in actions.events:
            self.observer.told(event)
            if isinstance(event, SideLost) and event.side == SECONDARY and self.secondary is not None:
                self.failover.report(self.secondary, "it did not complete a checkpoint")
        for request in actions.requests:
            self._ask(request)
        self.alarm.look()
        self._open_gates()
        self.observer.performed()

    def _send(self, port: Port, frames: list[Frame]) -> None:
        if not frames or port.role == LOST:
            return
        if port.backlog or self.schedule.now < port.stuck_until:
            if not port.backlog:
                port.stuck_since = self.schedule.now
                self.start_process(self._flush(port))
            port.backlog.extend([frame.data for frame in frames])
            return
        for frame in frames:
            port.link(frame.data)

    def _flush(self, port: Port) -> Steps:
        while port.role != LOST and self.schedule.now < port.stuck_until:
            limit = port.stuck_since + self.settings.checkpoint_timeout
            if port.role == SECONDARY and self.schedule.now >= limit:
                self.failover.report(port, "its port takes nothing")
                return
            yield min(port.stuck_until, limit) if port.role == SECONDARY else port.stuck_until
        while port.role == SECONDARY and self.replaces_state:
            yield math.inf
        while port.backlog:
            port.link(port.backlog.popleft())
        self._open_gates()

    # Time

    def _due(self) -> float:
        return math.inf if self.dead or self.failover.promoting else self.proxy.next_timer()

    def _run_timers(self) -> None:
        self.proxy.handle_timer(self.schedule.now)
        self.perform()
        if self.proxy.next_timer() <= self.schedule.now:
            raise AssertionError("the core's timer makes no progress")

    # Requests for checkpoints

    def _ask(self, request: CheckpointRequest) -> None:
        if self.epoch_asked is not None:
            raise AssertionError("the core asks for a checkpoint while one is under way")
        if request.epoch != self.proxy.epoch + 1 or not request.reasons:
            raise AssertionError(f"the core asks for nonsense: {request}")
        self._asked = request
        self.epoch_asked = request.epoch
        self.start_process(self._serve(request))

    def _serve(self, request: CheckpointRequest) -> Steps:
        while self._asked is request:
            if self.attempt is not None and not self.attempt.over:
                yield math.inf  # the backend has not let go of the one before
                continue
            if self.failover.promoting:
                yield self.schedule.now + 0.01
                continue
            backend = self.backend
            if backend is None or not backend.ready:
                self.proxy.postpone(request.epoch, self.schedule.now)
                yield self.schedule.now + 0.02
                continue
            self._asked = None
            self.attempt = Attempt(backend, request.epoch)

    @property
    def replaces_state(self) -> bool:
        """Whether the secondary may be loaded any moment."""
        return self.epoch_asked is not None and self._asked is None

    def _over(self) -> None:
        """Note that no checkpoint is under way, before the core is told."""
        self.epoch_asked = None
        self.backend_changed()

    def forget(self) -> None:
        """Cancel what is asked for: nobody waits for it any more."""
        self._asked = None
        self._over()
        if self.attempt is not None:
            self.attempt.cancel()

    def backend_changed(self) -> None:
        """Let everybody look again who waits for the backend."""
        for process in self._processes:
            process.wake()

    def intact(self) -> bool:
        """Say whether the secondary surely has its old state."""
        if self._asked is not None:
            return True
        return self.settings.reports_pause and self.proxy.checkpoint_state != PAUSED

    # Reports of the checkpointer

    def paused(self, epoch: int) -> None:
        """Note that the primary stands still: all that it sent before belongs to the checkpoint."""
        if epoch == self.epoch_asked:
            self._drain(self.primary)
            self.proxy.paused(epoch, self.schedule.now)
            self.perform()

    def loaded(self, epoch: int) -> None:
        """Note that the secondary has the new state: all that it sent before is void."""
        if epoch == self.epoch_asked:
            self._drain_secondary()
            self.proxy.loaded(epoch, self.schedule.now)
            self.perform()

    def _drain_secondary(self) -> None:
        if self.secondary is not None:
            self._drain(self.secondary)
            self.secondary.backlog.clear()  # it has the numbers of the state that is gone

    def committed(self, epoch: int) -> None:
        """Note that the secondary can take over from the new state."""
        if epoch == self.epoch_asked:
            if not self.settings.reports_pause:
                self._drain_secondary()  # nobody has told of the load
            self._over()
            self.proxy.committed(epoch, self.schedule.now)
            self.perform()
            if self.proxy.epoch != epoch:
                raise AssertionError(f"epoch {epoch} was committed, and the core is in {self.proxy.epoch}")

    def failed(self, epoch: int, detail: str, *, secondary_intact: bool) -> None:
        """Note that nothing was committed."""
        if epoch == self.epoch_asked:
            self._over()
            self.proxy.failed(epoch, detail, secondary_intact, self.schedule.now)
            self.perform()

    def guest_lost(self, side: int, detail: str) -> None:
        """Note that a guest is gone."""
        port = self.secondary if side == SECONDARY else self.primary
        if port is not None:
            self.failover.report(port, detail)

    # A new secondary

    def protect(self, port: Port, backend: Backend) -> None:
        """Take a new secondary, with a checkpointer of its own."""
        port.role = SECONDARY
        self.secondary = port
        self.backend = backend
        self.proxy.protect(self.schedule.now)
        self.perform()

    def state(self) -> str:
        """Tell what it is doing."""
        proxy = self.proxy
        losses = ", ".join(f"{SIDE_NAMES[port.role]}: {why}" for port, why in self.failover.losses)
        return (
            f"mode {proxy.mode}, epoch {proxy.epoch}, {proxy.checkpoint_state}, "
            f"{proxy.held_frames} frames held, {proxy.client_waiting} client frames wait {losses}"
        )
