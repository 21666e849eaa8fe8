"""The trio shell round the core: reads ports, feeds the core, performs its actions, runs its timers.

One nursery, no locks. The core is only ever called in a stretch of code without an ``await``: take frames or
a report, call the core, take its actions, hand them to the ports. Two tasks therefore never interleave
inside such a stretch, and the actions of one call are performed before the next call begins. Everything that
has to wait (a port that is full, a backend that fences a guest) waits outside of it.

Frames go from the reading task straight to the ports' send_batch. Memory channels between tasks were tried:
8 us for each hop, more than the whole comparison costs.

Back-pressure. Nothing is dropped to save memory (rule 6), so what a port does not take waits in its link's
backlog, and the loop stops reading what fills it:

- the client port has a backlog: the primary is not read. The secondary is, as its frames release memory.
- a guest port has a backlog: the client is not read.
- the core has no room for a side's frames (`Proxy.wants`): that side is not read.

Between QEMU's filters (settings without `mirror`) the primary does not wait for long. There its QEMU writes
what the guest says with its main loop, which waits for the reader, and which reads the client port and the
monitor: not reading it could stop all three, for ever. So it is read on while FILTER_ROOM is not full, and
beyond when the client port has taken nothing for FILTER_PATIENCE. What the port has not taken then is bounded
by the windows of the guest's connections as a rule, and otherwise by dropping, counted. (Reading on always
was tried: where the way out is slow, most of a transfer stood in memory, at twice the cost of each frame.)

A reader that waits for frames when its gate shuts still gives the one batch that ends its wait: a backlog is
bounded by what the core emits for a batch from each side, and at a commit by what the core had held.

A *secondary* that takes nothing must not stop the service for ever, though: after `checkpoint_timeout`
without a single frame taken it is lost, by the same measure as one that does not finish a checkpoint. In the
modes that do not protect it must not even delay the client: there its backlog is bounded by dropping,
counted; for a guest whose output reaches nobody that is ordinary network loss. A *primary* that takes nothing
is left to its checkpointer: whether it is dead, or paused, or slow cannot be told from here, and declaring it
dead would be a failover.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, TypeVarTuple

import trio

from colo_compare.checkpoint.contract import Checkpointer
from colo_compare.checkpointing import Checkpointing
from colo_compare.core.actions import CheckpointRequest, Divergence, Event, SecondaryJoined, SideLost
from colo_compare.core.settings import BYPASS, Settings
from colo_compare.core.sides import PRIMARY, SECONDARY
from colo_compare.errors import ControlRefused, PortError
from colo_compare.event_log import log_event
from colo_compare.failover import Failover
from colo_compare.filter_link import FilterLink
from colo_compare.link import LOST, Link
from colo_compare.measures import Measures
from colo_compare.operate.divergences import Divergences
from colo_compare.operate.history import EventHistory
from colo_compare.ports.port import FramePort
from colo_compare.protection import Protection
from colo_compare.reading_on import read_on
from colo_compare.suitability.survey import Surveyor
from colo_compare.traffic import Traffic

logger: Final = logging.getLogger(__name__)
Args = TypeVarTuple("Args")

KEPT_EVENTS: Final = 32  # for `status`
FILTER_PATIENCE: Final = 0.005  # seconds for which a client port between filters may take nothing


class Loop(Traffic):
    """Runs one proxy between three opened ports, with one checkpointer.

    Times are trio's (`trio.current_time`), so a test's MockClock is the core's clock too.
    """

    def __init__(
        self,
        settings: Settings,
        client: FramePort,
        primary: FramePort,
        secondary: FramePort,
        checkpointer: Checkpointer,
    ) -> None:
        self.started_at = trio.current_time()
        super().__init__(settings, client, primary, secondary, self.started_at)
        self._attached: list[FramePort] = []  # while running: ours to close
        self.checkpointing = Checkpointing(self, checkpointer)
        self.failover = Failover(self, checkpointer)
        self.protection = Protection(self, checkpointer)
        self.events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self.measures: Final = Measures()
        self.history: Final = EventHistory()
        self.divergences: Final = Divergences()
        self._nursery: trio.Nursery  # from `run` on
        self._changed = trio.lowlevel.ParkingLot()  # who waits until the core has done something
        self._sleep = trio.CancelScope()  # of the timer task

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until `stop`, or until nothing is left that could go on.

        Raises PortClosed when the client port, or the last guest, is gone, and PromotionFailed when the
        primary is gone and the secondary could not take over. Any other exception is a bug: the core is
        never called again after one, as it might release what it must hold.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self.start_soon(self.checkpointing.run_backend)
                self.start_soon(self.checkpointing.serve_requests)
                self.start_soon(self.failover.run)
                self.proxy.start(trio.current_time())
                self.perform()
                for link in self.links:
                    self._serve(link)
                self.start_soon(self._run_timers)
                task_status.started()
        finally:
            self.protection.give_up("the proxy has ended")
            with trio.CancelScope(shield=True):
                for port in self._attached:
                    await port.aclose()
        if self.error is not None:
            raise self.error

    def _serve(self, link: Link) -> None:
        self.start_soon(self._read, link)
        self.start_soon(self._flush, link)

    def start_soon(self, task: Callable[[*Args], Awaitable[None]], *args: *Args) -> None:
        """Start a task that ends with the loop, and ends the loop if it fails."""
        self._nursery.start_soon(self._guard, task, args)

    async def _guard(self, task: Callable[[*Args], Awaitable[None]], args: tuple[*Args]) -> None:
        try:
            await task(*args)
        except Exception as error:  # a bug: here, in the core, or in a port
            self.end(error)

    # Stopping

    def stop(self) -> None:
        """Stop: first call gracefully, second call at once."""
        if self.stopping:
            self._nursery.cancel_scope.cancel()
        else:
            self.stopping = True
            if self.protection.forming:
                self.protection.give_up("the proxy is stopping")
            self.start_soon(self._wind_down, trio.current_time() + self.settings.compare_timeout)

    def end(self, error: Exception) -> None:
        """End the loop now: `run` raises this error (the first one, if there are several).

        Tasks that are about to run do so once more before they see that they are cancelled, so from here on
        nothing reaches the core any more: it could release what it must hold.
        """
        if self.error is None:
            self.error = error
        self.checkpointing.forget()
        self._nursery.cancel_scope.cancel()

    async def _wind_down(self, deadline: float) -> None:
        """Take nothing more from the client, let what is held match or reach its deadline, and end."""
        logger.info("stopping: no more client frames, %d frames are held", self.proxy.held_frames)
        with trio.move_on_at(deadline):
            await self._emptied()
        if self.proxy.held_frames or self.client.backlog:
            logger.warning(
                "stopped: left behind are %d held frames, and %d that the client port had not taken",
                self.proxy.held_frames,
                len(self.client.backlog),
            )
        else:
            logger.info("stopped: nothing was left behind")
        self._nursery.cancel_scope.cancel()

    async def _emptied(self) -> None:
        """Wait until nothing is held, nor waits for the client port."""
        self.awaiting_change += 1
        try:
            while self.proxy.held_frames or self.client.backlog:
                await self._changed.park()
        finally:
            self.awaiting_change -= 1

    # Draining

    async def drain_out(self, limit: float) -> bool:
        """Take nothing from the client until `take_in`; give whether nothing is held within `limit` seconds.

        What the client sent before is mirrored, and what is held may match, or be covered by a checkpoint.
        """
        self.draining = True
        with trio.move_on_after(limit):
            await self._emptied()
        return not (self.proxy.held_frames or self.client.backlog)

    def take_in(self) -> None:
        """End a drain."""
        self.draining = False
        self.open_gates()

    # Frames in

    async def _read(self, link: Link) -> None:
        port = link.port
        while link.role != LOST:
            if not self.may_read(link):
                await link.wait_at_gate()
                continue
            try:
                batch = await port.receive_batch()
            except (PortError, OSError) as error:
                self.failover.report(link, str(error))
                return
            while self.draining and link is self.client:
                await link.wait_at_gate()  # this batch is the client's first one after the drain
            # The link may have been fenced, and the stop begun, while this task waited.
            if link.role != LOST and not (self.stopping and link is self.client):
                self.feed(link, batch)
                read_on(self)

    # Actions out

    def report(self, link: Link, why: str) -> None:
        """Note that a link is lost."""
        self.failover.report(link, why)

    def ask(self, request: CheckpointRequest) -> None:
        """Ask the checkpointer for a checkpoint."""
        self.checkpointing.ask(request)

    def wake_earlier(self) -> None:
        """Note that the timer task must wake up earlier."""
        self._sleep.deadline = self.wakes_at

    def tell_change(self) -> None:
        """Wake up the tasks that wait until the core has done something."""
        self._changed.unpark_all()

    def tell(self, event: Event) -> None:
        """Take what the core has to tell."""
        self.events.append(event)
        self.measures.note(event)
        self.history.note(event)
        theirs = 0 if self.secondary is None else self.secondary.port.header_len
        self.divergences.note(event, self.primary.port.header_len, theirs)
        if isinstance(event, Divergence):
            self.frames.mark(event, self.divergences.cause_of(event.id))
            self._survey(event)
        log_event(event)
        if isinstance(event, SideLost) and event.side == SECONDARY and self.secondary is not None:
            # The core's own decision (too many failures, no answer in time).
            self.failover.report(self.secondary, "it did not complete a checkpoint")
        self.protection.note_news()

    async def _flush(self, link: Link) -> None:
        """Send a link's backlog whenever its port has room."""
        while link.role != LOST:
            await link.backlogged.wait()
            try:
                while link.backlog:
                    with trio.CancelScope(deadline=self._patience(link)) as scope:
                        await link.port.wait_writable()
                    if scope.cancelled_caught and isinstance(link, FilterLink):
                        link.blocked = True
                        self.open_gates()
                        continue
                    if scope.cancelled_caught and link.role == SECONDARY:  # not promoted meanwhile
                        self.failover.report(
                            link, f"its port has taken no frame for {self.settings.checkpoint_timeout:g} s"
                        )
                        return
                    if self.checkpointing.replaces_state_of(link):
                        await self.checkpointing.concluded()
                        link.stuck_since = trio.current_time()  # that it took nothing was our doing
                    elif link.backlog:
                        link.flush()
            except (PortError, OSError) as error:
                self.failover.report(link, str(error))
                return
            self.open_gates()
            self.tell_change()

    def _patience(self, link: Link) -> float:
        """Give the time until which a port may take nothing."""
        if link.role == SECONDARY:
            return link.stuck_since + self.settings.checkpoint_timeout
        if isinstance(link, FilterLink) and not link.blocked:
            return link.stuck_since + FILTER_PATIENCE
        return float("inf")

    # Time

    async def _run_timers(self) -> None:
        while True:
            self.wakes_at = self.proxy.next_timer()
            with trio.CancelScope(deadline=self.wakes_at) as self._sleep:
                await trio.sleep_forever()
            await self.failover.while_promoting()
            if self.error is not None:
                return
            self.proxy.handle_timer(trio.current_time())
            self.perform()

    # Surveys

    @contextmanager
    def surveyed_by(self, surveyor: Surveyor) -> Iterator[None]:
        """Let somebody see all frames and divergences for a while."""
        self.surveyors.append(surveyor)
        try:
            yield
        finally:
            self.surveyors.remove(surveyor)

    def _survey(self, event: Divergence) -> None:
        for surveyor in self.surveyors:
            record = self.divergences.get(event.id)
            assert record is not None  # it is the newest
            surveyor.diverge(record, event.at)

    # Changes

    @contextmanager
    def core(self) -> Iterator[None]:
        """Guard calls of the core that are made elsewhere: for a backend, an operator, or a lost side.

        A backend, or the control socket, may take whatever is raised for a failure of its own, and go on.
        """
        if self.error is not None:
            raise self.error
        try:
            yield
        except Exception as error:
            self.end(error)
            raise

    def apply(self, settings: Settings) -> None:
        """Take new settings while running."""
        self.settings = settings
        with self.core():
            self.proxy.apply(settings, trio.current_time())
            self.perform()

    def pace(self, interval: float) -> None:
        """Make checkpoints at least this often, where the operator does not want them more often."""
        longest = min(self.settings.max_interval, max(interval, self.settings.min_interval))
        if longest != self.proxy.settings.max_interval:
            with self.core():
                self.proxy.apply(replace(self.settings, max_interval=longest), trio.current_time())
                self.perform()

    async def set_mode(self, mode: str) -> None:
        """Change the mode by an operator's decision: protect, observe or bypass.

        A checkpoint under way comes to its result first. Raises ControlRefused when there is no secondary to
        protect with, or compare.
        """
        if mode == self.proxy.mode:
            return
        async with self.checkpointing.suspended():
            await self.failover.while_promoting()
            if self.secondary is None and mode != BYPASS:
                raise ControlRefused(f"mode {mode} needs a secondary, and it is lost")
            self.checkpointing.forget()  # of what is asked for, the backend knows nothing
            with self.core():
                self.proxy.set_mode(mode, trio.current_time())
                self.perform()

    def swap(self) -> Link:
        """Swap the roles, in the same stretch of code as Proxy.promote; gives the old primary's link."""
        assert self.secondary is not None
        old, self.primary, self.secondary = self.primary, self.secondary, None
        self.primary.role = PRIMARY
        return old

    def reconnect_client(self, port: FramePort) -> Link:
        """Let what is released go out by another client port, which is open; gives the old one's link."""
        old, link = self.client, self.client_link(port)
        self.links = [link if each is old else each for each in self.links]
        self.client = link
        self._attached.append(port)
        old.fence("the client has another port")
        self._serve(link)
        return old

    def hear_again(self) -> None:
        """Let what is released go out by the client's port again: the guest speaks past us no longer."""
        self.way_out = self.client
        with self.core():
            self.proxy.forget_flows(trio.current_time())

    def attach(self, link: Link) -> None:
        """Take a new secondary, in the place of the lost link of its name, and ask for a checkpoint."""
        self.links = [link if each.name == link.name else each for each in self.links]
        self.secondary = link
        self._attached.append(link.port)
        self._serve(link)
        with self.core():
            now = trio.current_time()
            self.tell(SecondaryJoined(now, link.name, link.port.url))
            self.proxy.protect(now)
            self.perform()
