"""A client, two guests, a checkpointer and lossy links around one real `Proxy`, in virtual time.

`World.survives()` is the oracle: in a copy of the whole world the primary dies at this very moment, all else
works from then on, and the client must get what it asked for, with nothing that it heard before made untrue.
The copy of the proxy is made by giving a new one the same input again, which shows besides that the same
input gives the same output.
"""

import copy
import random

from colo_compare.core.actions import Actions, SideLost
from colo_compare.core.proxy import Proxy
from colo_compare.core.settings import Settings
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.simulate.client import Client
from colo_compare.simulate.hosts import Guest, Machine, guest_end
from colo_compare.simulate.tcp import Contradiction
from colo_compare.wire.frame import parse_frame
from tests.frames import ACK, TCP, Dissected, dissect

PATIENCE = 60.0  # virtual seconds in which everything must be done once faults have stopped
STEPS = 20_000
PAGES = 96  # of a guest's memory

COMPARING, REQUESTED, PAUSED, LOADED = "comparing", "requested", "paused", "loaded"


Flow = tuple[int, int, int]  # protocol, guest's port, client's port


def _flow(seen: Dissected) -> Flow:
    return seen.protocol, seen.source_port, seen.target_port


class RecordedProxy:
    """A proxy, and all that it was told."""

    def __init__(self, settings: Settings, now: float) -> None:
        self.settings = settings
        self.began = now
        self.proxy = Proxy(settings, now)
        self.journal: list[tuple[str, tuple[object, ...]]] = []

    def tell(self, method: str, *args: object) -> Actions:
        self.journal.append((method, args))
        return self._apply(method, args)

    def receive(self, side: int, frame: bytes, now: float) -> Actions:
        return self.tell("receive", side, frame, now)

    def _apply(self, method: str, args: tuple[object, ...]) -> Actions:
        if method == "receive":
            side, data, now = args
            assert isinstance(side, int)
            assert isinstance(data, bytes)
            assert isinstance(now, float)
            self.proxy.receive(side, [parse_frame(data, 0, side == CLIENT)], now)
        else:
            getattr(self.proxy, method)(*args)
        return self.proxy.take_actions()

    def __deepcopy__(self, memo: dict[int, object]) -> "RecordedProxy":
        twin = RecordedProxy(self.settings, self.began)
        twin.journal = list(self.journal)
        for method, args in self.journal:
            twin._apply(method, args)
        assert twin.proxy.counters.snapshot() == self.proxy.counters.snapshot(), "not deterministic"
        return twin


class World:
    """Everything there is. Times are seconds."""

    def __init__(
        self,
        seed: int,
        settings: Settings,
        *,
        times: bool = True,
        version: int = 4,
        reports_load: bool = True,
    ) -> None:
        self.chance = random.Random(seed)
        self.settings = settings
        self.reports_load = reports_load
        self.now = 1000.0
        self.client = Client(seed, times, version)
        self.guest_scale = self.chance.choice((0, 2, 7))
        self.guests = 0
        self.primary = self._new_guest()
        self.secondary: Guest | None = self._new_guest()
        self.to_proxy: dict[int, list[bytes]] = {CLIENT: [], PRIMARY: [], SECONDARY: []}
        self.from_proxy: dict[int, list[bytes]] = {CLIENT: [], PRIMARY: [], SECONDARY: []}
        self.checkpoint = COMPARING
        self.snapshot = b""  # the primary's memory as it was at the pause
        self.device_state = b""
        self.paused_at = 0.0
        self.stands_behind = False  # the secondary has a state that a commit gave it
        self.shifted = False  # a promoted guest's connections keep their offsets
        # Frames held: tag, whether it says something first, and the sequence space of what is left of it.
        self.arrived: dict[Flow, list[tuple[int, bool, int]]] = {}
        self.newest: dict[Flow, int] = {}  # where the primary's stream ends so far
        self.proxy = RecordedProxy(settings, self.now)
        self.perform(self.proxy.tell("start", self.now))

    def _new_guest(self) -> Guest:
        self.guests += 1
        seed = self.chance.getrandbits(32)
        end, tag = guest_end(self.client.end.version), (self.guests % 8) << 13
        guest = Guest(end, seed, self.client.times, tag, pages=PAGES)
        guest.scale = self.guest_scale if self.chance.random() < 0.95 else 5
        return guest

    # The proxy's actions

    def perform(self, actions: Actions) -> None:
        for frame in actions.to_client:
            self._note_release(frame.data)
            self.from_proxy[CLIENT].append(frame.data)
        for side, sent in ((PRIMARY, actions.to_primary), (SECONDARY, actions.to_secondary)):
            self.from_proxy[side] += [frame.data for frame in sent]
        for request in actions.requests:
            assert self.checkpoint == COMPARING, "a second request while one is on its way"
            assert request.epoch == self.proxy.proxy.epoch + 1
            assert request.reasons
            self.checkpoint = REQUESTED
        for event in actions.events:
            if isinstance(event, SideLost) and event.side == SECONDARY:
                self._secondary_is_gone()
        self._check_account()

    def _note_release(self, data: bytes) -> None:
        seen = dissect(data)
        waiting = self.arrived.get(_flow(seen), [])
        at = next((index for index, (tag, _, _) in enumerate(waiting) if tag == seen.tag), -1)
        if at < 0:
            own = seen.protocol == TCP and seen.flags == ACK and not seen.payload  # a window that opens
            assert own, f"released twice, or never received: {seen}"
            return
        tag, new, span = waiting[at]
        assert not new or not any(first for _, first, _ in waiting[:at]), (
            "one frame overtook another of its flow"
        )
        if seen.span == span:
            del waiting[at]
        else:  # it was cut, and the rest is still held
            assert 0 < seen.span < span
            waiting[at] = (tag, new, span - seen.span)

    def _note_arrival(self, data: bytes) -> None:
        seen = dissect(data)
        flow = _flow(seen)
        new = True
        if seen.protocol == TCP:
            # What repeats, fills a hole or only acknowledges may overtake what waits for the secondary.
            end = (seen.seq + seen.span) & 0xFFFFFFFF
            new = seen.span > 0 and (
                flow not in self.newest or 0 < (end - self.newest[flow]) & 0xFFFFFFFF < 1 << 31
            )
            if new:
                self.newest[flow] = end
        self.arrived.setdefault(flow, []).append((seen.tag, new, seen.span))

    def _check_account(self) -> None:
        proxy = self.proxy.proxy
        counters = proxy.counters
        held = counters.received[PRIMARY] - counters.released_total() - counters.discarded_total()
        assert held == proxy.held_frames, f"{held} frames should be held, {proxy.held_frames} are"
        assert proxy.held_frames >= 0
        if self.checkpoint in (PAUSED, LOADED) and proxy.mode == "protect" and self.settings.reports_pause:
            assert proxy.checkpoint_state == "paused"
        assert proxy.wants(SECONDARY)
        if proxy.held_frames == 0:
            assert proxy.wants(PRIMARY)
        assert not counters.discarded["superseded"], "no connection of this world is replaced by another"
        assert not counters.discarded["unusable"]

    # Frames move

    def links(self) -> list[tuple[bool, int]]:
        """Those on which something can arrive now: (towards the proxy, side)."""
        found = [(True, side) for side, frames in self.to_proxy.items() if frames]
        found += [(False, side) for side, frames in self.from_proxy.items() if frames and self._listens(side)]
        return found

    def _listens(self, side: int) -> bool:
        return side != PRIMARY or not self._primary_stands_still()

    def _primary_stands_still(self) -> bool:
        return self.checkpoint in (PAUSED, LOADED) and self.settings.reports_pause

    def deliver(self, inward: bool, side: int, index: int = 0) -> None:
        """Let one frame arrive."""
        queue = (self.to_proxy if inward else self.from_proxy)[side]
        frame = queue.pop(index)
        if inward:
            if side == PRIMARY:
                self._note_arrival(frame)
            self.perform(self.proxy.receive(side, frame, self.now))
        else:
            machine = self._machine(side)
            if machine is not None:
                self.to_proxy[side] += machine.receive(frame, self.now)
        self.poll()

    def _machine(self, side: int) -> "Machine | None":
        if side == CLIENT:
            return self.client
        if side == PRIMARY:
            return self.primary
        # Before a commit stands behind it, what it hears and says is of no meaning to anybody.
        return self.secondary if self.stands_behind else None

    def poll(self) -> None:
        """Let every machine that runs send what it wants to send."""
        self.to_proxy[CLIENT] += self.client.poll(self.now)
        if not self._primary_stands_still():
            self.to_proxy[PRIMARY] += self.primary.poll(self.now)
        if self.secondary is not None and self.stands_behind:
            self.to_proxy[SECONDARY] += self.secondary.poll(self.now)

    def drain(self, side: int) -> None:
        """Deliver what a guest has sent."""
        while self.to_proxy[side]:
            self.deliver(True, side)

    # Time passes

    def next_timer(self) -> float:
        due = min(self.proxy.proxy.next_timer(), self.client.next_timer())
        if not self._primary_stands_still():
            due = min(due, self.primary.next_timer())
        if self.secondary is not None and self.stands_behind:
            due = min(due, self.secondary.next_timer())
        return due

    def advance(self, until: float) -> None:
        """Go on to a time, timer by timer."""
        for _ in range(STEPS):
            due = self.next_timer()
            if due > until:
                break
            self.now = max(self.now, due)
            if self.proxy.proxy.next_timer() <= self.now:
                self.perform(self.proxy.tell("handle_timer", self.now))
                assert self.proxy.proxy.next_timer() > self.now, "the proxy's timer makes no progress"
            self.poll()
        else:
            raise AssertionError("timers without end")
        self.now = max(self.now, until)

    # The checkpointer

    def pause(self) -> None:
        """The primary stops, and its state is copied; its port is drained by then."""
        assert self.checkpoint == REQUESTED
        if self.settings.reports_pause:
            self.drain(PRIMARY)
            self.checkpoint = PAUSED
            self.perform(self.proxy.tell("paused", self._epoch(), self.now))
        else:
            self.checkpoint = PAUSED
        self.device_state = self.primary.save(self.now)
        self.snapshot = bytes(self.primary.memory)
        self.paused_at = self.now
        self.from_proxy[SECONDARY] = []  # the old secondary got it, or nobody did

    def _epoch(self) -> int:
        return self.proxy.proxy.epoch + 1

    def load(self) -> None:
        """The secondary gets the copied state."""
        assert self.checkpoint == PAUSED
        self.drain(SECONDARY)
        self.checkpoint = LOADED
        self._copy()
        self.perform(self.proxy.tell("loaded", self._epoch(), self.now))
        self.poll()

    def _copy(self) -> None:
        assert self.secondary is not None
        self.secondary.memory[:] = self.snapshot
        self.secondary.load(self.device_state, self.now)
        self.stands_behind = True

    def commit(self) -> None:
        assert self.checkpoint in (PAUSED, LOADED)
        if self.checkpoint == PAUSED:
            self.drain(SECONDARY)
            self._copy()
        if self.settings.reports_pause:
            self.primary.lag += self.now - self.paused_at
        epoch = self._epoch()
        self.checkpoint = COMPARING
        self.perform(self.proxy.tell("committed", epoch, self.now))
        assert self.proxy.proxy.epoch == epoch
        assert self.proxy.proxy.protected
        self.poll()

    def abort(self, intact: bool) -> None:
        """The checkpoint fails before anything was loaded."""
        assert self.checkpoint in (REQUESTED, PAUSED)
        if self.checkpoint == PAUSED and self.settings.reports_pause:
            self.primary.lag += self.now - self.paused_at
        self.checkpoint = COMPARING
        self.perform(self.proxy.tell("failed", self._epoch(), "simulated", intact, self.now))
        self.poll()

    def whole_checkpoint(self) -> None:
        """Finish what was begun."""
        if self.checkpoint == REQUESTED:
            self.pause()
        if self.checkpoint == PAUSED and self.reports_load:
            self.load()
        if self.checkpoint != COMPARING:
            self.commit()

    def ask_checkpoint(self) -> None:
        self.perform(self.proxy.tell("request_checkpoint", "operator", self.now))

    # Death

    def _secondary_is_gone(self) -> None:
        self.secondary = None
        self.stands_behind = False
        self._end_checkpoint()
        self.to_proxy[SECONDARY] = []
        self.from_proxy[SECONDARY] = []

    def _end_checkpoint(self) -> None:
        if self.checkpoint in (PAUSED, LOADED) and self.settings.reports_pause:
            self.primary.lag += self.now - self.paused_at
        self.checkpoint = COMPARING
        self.snapshot = b""

    def kill_secondary(self) -> None:
        self.perform(self.proxy.tell("lose_secondary", self.now))
        assert self.secondary is None
        self.poll()

    def kill_primary(self) -> None:
        """The primary is gone; what it sent and nobody got is, too."""
        assert self.secondary is not None
        self.to_proxy[PRIMARY] = []
        self.from_proxy[PRIMARY] = []
        self.checkpoint = COMPARING
        self.snapshot = b""
        self.primary = self.secondary
        self.secondary = None
        self.stands_behind = False
        self.shifted = True
        self._promote()
        # What the new primary had sent and the proxy not received comes from the primary's side now.
        self.to_proxy[PRIMARY] = self.to_proxy[SECONDARY]
        self.from_proxy[PRIMARY] = self.from_proxy[SECONDARY] + self.from_proxy[PRIMARY]
        self.to_proxy[SECONDARY] = []
        self.from_proxy[SECONDARY] = []
        self.poll()

    def _promote(self) -> None:
        before = self._newest_times()
        covered = {tag for waiting in self.arrived.values() for tag, _, _ in waiting}
        self.arrived, self.newest = {}, {}
        actions = self.proxy.tell("promote", self.now)
        assert self.proxy.proxy.mode == "solo"
        for frame in actions.to_client:  # what it had said before, or what a commit unheard of covered
            seen = dissect(frame.data)
            port = (seen.source_port, seen.target_port)
            if seen.times is not None and port in before and seen.tag not in covered:
                back = (before[port] - seen.times[0]) & 0xFFFFFFFF
                assert back == 0 or back & 0x80000000, f"TSval steps back by {back}: PAWS drops it"
            self.from_proxy[CLIENT].append(frame.data)
        actions.to_client = []
        self.perform(actions)

    def _newest_times(self) -> dict[tuple[int, int], int]:
        return {
            (remote, local): socket.ts_recent
            for (local, remote), socket in self.client.sockets.items()
            if socket.ts_recent is not None
        }

    def protect_again(self) -> None:
        """A new guest, of no state yet, becomes the secondary."""
        assert self.secondary is None
        self.secondary = self._new_guest()
        self.perform(self.proxy.tell("protect", self.now))

    def restart_proxy(self) -> None:
        """The proxy crashes and starts again beside guests that run on; what it held is lost."""
        self.arrived, self.newest = {}, {}
        self.stands_behind = False
        self._end_checkpoint()
        self.proxy = RecordedProxy(self.settings, self.now)
        self.perform(self.proxy.tell("start", self.now))

    # The oracle

    def run_out(self) -> None:
        """Without further faults everything is done within a bound."""
        limit = self.now + PATIENCE
        for machine in (self.client, self.primary, self.secondary):
            if machine is not None:
                machine.reading = True
                machine.mss = 200
        self.client.act()
        self.primary.serve()
        if self.secondary is not None:
            self.secondary.serve()
        self.poll()
        for _ in range(STEPS):
            links = self.links()
            if links:
                self.deliver(*links[0])
            elif self.checkpoint != COMPARING:
                self.whole_checkpoint()
            elif self.client.done:
                break
            else:
                due = self.next_timer()
                if due > limit:
                    raise Contradiction(f"stuck, {PATIENCE:g} s after the last fault: {self.client.state()}")
                self.advance(due)
        else:
            raise Contradiction("frames without end")
        self.client.witness.check_history()

    def _twin(self) -> "World":
        return copy.deepcopy(self, {id(self.settings): self.settings})  # compiled, it cannot be copied

    def survives(self) -> None:
        """Whoever dies now: the client must not notice."""
        if self.secondary is not None and self.stands_behind:
            twin = self._twin()
            twin.kill_primary()
            twin.client.call(b"G", 0, pipelined=False)  # to hear where the survivor's history stands
            twin.poll()
            twin.run_out()

    def completes(self) -> None:
        """If nobody dies, all is well, too."""
        self._twin().run_out()


def unlucky(world: World, steps: int, loss: float, shuffle: float, seed: int) -> None:
    """Move frames and time at random; `loss` and `shuffle` are probabilities for each frame."""
    chance = random.Random(seed)
    for _ in range(steps):
        links = world.links()
        if not links or chance.random() < 0.03:
            world.advance(world.now + chance.choice((0.001, 0.01, 0.05, 0.3)))
            continue
        inward, side = chance.choice(links)
        queue = (world.to_proxy if inward else world.from_proxy)[side]
        index = chance.randrange(len(queue)) if chance.random() < shuffle else 0
        fate = chance.random()
        if fate < loss:
            del queue[index]
            continue
        if fate < loss + shuffle / 4:
            queue.append(queue[index])
        world.deliver(inward, side, index)
