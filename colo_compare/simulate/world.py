"""Everything there is in one run, and what befalls it."""

import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Final

from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY, SIDE_NAMES
from colo_compare.guest.noise import Noise
from colo_compare.simulate import scenario as kinds
from colo_compare.simulate.backend import Backend
from colo_compare.simulate.client import Client
from colo_compare.simulate.embedded import EmbeddedGuest, HttpClient
from colo_compare.simulate.hosts import Guest, guest_end
from colo_compare.simulate.links import Link, Weather
from colo_compare.simulate.oracle import Oracle
from colo_compare.simulate.packets import Seen
from colo_compare.simulate.receiver import Receiver
from colo_compare.simulate.scenario import Event, GuestTraits, Scenario
from colo_compare.simulate.schedule import Alarm, Schedule
from colo_compare.simulate.seat import Seat, SeatedGuest
from colo_compare.simulate.shell import LOST, Port, Shell
from colo_compare.simulate.tcp import Contradiction
from colo_compare.wire.frame import OPAQUE, parse_frame

PATIENCE: Final = 60.0  # virtual seconds in which everything must be done once nothing befalls the world
_STORM: Final = 5.0  # virtual seconds that the network's own faults go on after the last event
_LOOK_EVERY: Final = 8  # things, for whether all is done
STEPS: Final = 60_000  # more things than any run needs


class World:
    """A client, a proxy, guests and their links. Times are virtual seconds."""

    def __init__(self, scenario: Scenario, *, tracing: bool = False) -> None:
        self.scenario: Final = scenario
        self.tracing: Final = tracing
        self.trace: Final[list[str]] = []
        self.faults: Final[Counter[str]] = Counter()  # that took place
        self.lost_service = ""  # why nobody serves any more
        self.schedule: Final = Schedule()
        self._chance: Final = random.Random(scenario.seed ^ 0x5EED)
        self._guests = 0
        self._isn_seed: Final = self._chance.getrandbits(32)
        self._last_event = 0.0
        self._pending = 0  # events that have not happened yet
        self._aimed: list[Event] = []
        self._disturbed_until = 0.0  # the secondary might not be able to take over until then
        self._excused = False
        self._shifted = False  # a promoted guest has numbers that only the proxy knows
        self._peace = False  # nothing befalls it any more
        self.probe: Callable[[], None] | None = None  # called between any two things that happen
        self.oracle: Final = Oracle(self)
        client_seed = self._chance.getrandbits(32)
        self.client: Final = (
            HttpClient(client_seed, scenario.times)
            if scenario.embedded
            else Client(client_seed, scenario.times, scenario.version)
        )
        self.client.mss = scenario.client_mss
        self.client.room = scenario.room
        self._client_alarm: Final = Alarm(self.schedule, self.client.next_timer, self._client_polls)
        self._client_port: Final = Port("client", CLIENT, scenario.port_room)
        self._to_proxy: Final = self._link(scenario.client_link, self._arrives_from_client)
        to_client = self._link(scenario.client_link, self._client_takes)
        self._client_port.link = to_client.send
        self._links: Final = {CLIENT: (self._to_proxy, to_client)}
        self._ports: Final[dict[str, Port]] = {}
        self.primary = self._new_seat(PRIMARY, scenario.primary_link)
        self.secondary: Seat | None = self._new_seat(SECONDARY, scenario.secondary_link)
        self._receiver = self._new_receiver(self.secondary)
        self.shell = self._new_shell()
        self.backend = self._new_backend()
        self.shell.start()
        for event in scenario.events:
            self._pending += 1
            self.schedule.at(event.at, self._befall, event)

    # Making things

    def _link(self, weather: Weather, arrive: Callable[[bytes], None]) -> Link:
        return Link(self.schedule, weather, self._chance.getrandbits(32), arrive)

    def _new_seat(self, role: int, weather: Weather) -> Seat:
        traits = self.scenario.guests[min(self._guests, len(self.scenario.guests) - 1)]
        self._guests += 1
        seed = self._isn_seed if self.scenario.same_isn else self._chance.getrandbits(32)
        guest = self._new_embedded(seed, traits) if self.scenario.embedded else self._new_model(seed, traits)
        seat = Seat(self.schedule, guest, f"guest {self._guests}")
        port = Port(seat.name, role, self.scenario.port_room)
        self._ports[seat.name] = port
        out = self._link(weather, lambda frame: self.shell.arrive(port, frame))
        inward = self._link(weather, seat.arrive)
        seat.out, seat.inward = out, inward
        port.link = inward.send
        return seat

    def _new_model(self, seed: int, traits: GuestTraits) -> SeatedGuest:
        scenario = self.scenario
        tag = (self._guests % 8) << 13
        guest = Guest(guest_end(scenario.version), seed, scenario.times, tag, scenario.pages)
        guest.mss = traits.mss
        guest.think = traits.think
        guest.jitter = traits.jitter
        guest.scale = traits.scale
        guest.room = scenario.room
        return guest

    def _new_embedded(self, seed: int, traits: GuestTraits) -> SeatedGuest:
        noise = Noise(
            seed,
            random_every=5 if traits.mss == 100 else 0,
            random_isn=traits.think > 0,
            clock_jitter=traits.jitter / 1000,
        )
        return EmbeddedGuest(noise, str(seed))

    def _new_receiver(self, seat: Seat) -> Receiver:
        chance = random.Random(self._chance.getrandbits(32))
        return Receiver(self.schedule, seat, chance, self.scenario.wiring.timeout)

    def _new_shell(self) -> Shell:
        return Shell(
            self.schedule,
            self.scenario.settings,
            self._client_port,
            self._ports[self.primary.name],
            None if self.secondary is None else self._ports[self.secondary.name],
            self.oracle,
            random.Random(self._chance.getrandbits(32)),
        )

    def _new_backend(self) -> Backend:
        chance = random.Random(self._chance.getrandbits(32))
        backend = Backend(
            self.schedule, self.shell, self.primary, self._receiver, self.scenario.wiring, chance
        )
        self.shell.backend = backend
        return backend

    # The client

    def _client_polls(self) -> None:
        self._client_sends(self.client.poll(self.schedule.now))

    def _client_sends(self, frames: list[bytes]) -> None:
        for frame in frames:
            self._to_proxy.send(frame)
        self._client_alarm.look()

    def _client_takes(self, frame: bytes) -> None:
        self._client_sends(self.client.receive(frame, self.schedule.now))

    def _arrives_from_client(self, frame: bytes) -> None:
        self.shell.arrive(self._client_port, frame)

    # What befalls it

    def _befall(self, event: Event) -> None:
        if event.aimed and self.shell.proxy.checkpoint_state == "comparing" and not self.lost_service:
            self._aimed.append(event)
            self.shell.proxy.request_checkpoint("operator", self.schedule.now)
            self.shell.perform()
            self._strike()
            return
        self._happen(event)

    def _strike(self) -> None:
        aimed, self._aimed = self._aimed, []
        for event in aimed:
            self.schedule.after(event.delay, self._happen, event)

    def _happen(self, event: Event) -> None:
        if self._peace:
            return
        self._pending -= 1
        self._last_event = max(self._last_event, self.schedule.now + event.length)
        if not self._pending:
            self.schedule.at(self._last_event + _STORM, self._calm_down)
        if self.lost_service:
            return
        done = self._do(event)
        if event.kind not in kinds.WISHES:
            if done:
                self.faults[event.kind] += 1
            self.note(f"{event.kind}{'' if done else ': not possible now'}")

    def _calm_down(self) -> None:
        """Let the network do no more harm, so that what is not done in time will never be."""
        for side in (CLIENT, PRIMARY, SECONDARY):
            for link in self._links_of(side):
                link.weather = link.weather.calm()

    def _do(self, event: Event) -> bool:
        kind = event.kind
        now = self.schedule.now
        until = now + event.length
        if kind == kinds.CALL:
            self.client.call(event.text, event.size, event.flag)
        elif kind == kinds.DATAGRAM:
            self.client.ask_datagram(event.text, event.size, now)
        elif kind == kinds.PING:
            self.client.ping(now)
        elif kind == kinds.HANG_UP:
            self.client.hang_up(event.who)
        elif kind == kinds.CRASH_PRIMARY:
            return self._crash_primary()
        elif kind == kinds.CRASH_SECONDARY:
            return self._crash_secondary()
        elif kind == kinds.CRASH_PROXY:
            return self._crash_proxy(event.length)
        elif kind == kinds.HANG_PRIMARY:
            self._hang(self.primary, until)
        elif kind == kinds.HANG_SECONDARY:
            return self._hang(self.secondary, until)
        elif kind in _CUTS or kind in _SLOWS:
            return self._hurt_links(kind, until)
        elif kind in _STUCK:
            return self._fill(_STUCK[kind], until)
        elif kind in (kinds.BREAK_CHANNEL, kinds.STALL_CHANNEL):
            return self._hurt_channel(kind, event)
        elif kind == kinds.CHECKPOINT:
            if self.shell.dead:
                return False
            self.shell.proxy.request_checkpoint("operator", now)
            self.shell.perform()
        elif kind == kinds.PROMOTE:
            self._excused = True
            self.shell.promote()
        elif kind == kinds.PROTECT:
            return self._protect_again()
        else:
            self._upset(event, until)
        self._client_polls()
        return True

    def _disturb(self, until: float) -> None:
        """Note that the secondary might not be able to take over for a while."""
        self._disturbed_until = max(self._disturbed_until, until + 3.0)

    def _crash_primary(self) -> bool:
        shell = self.shell
        if self.secondary is None or not self.secondary.alive or not shell.proxy.protected or shell.dead:
            return False  # one death too many
        if not self.primary.alive or shell.promoting:
            return False
        calm = self.schedule.now >= self._disturbed_until and self.secondary.runs
        self._excused = not calm
        self.primary.kill()
        port = self._ports[self.primary.name]
        self.schedule.after(self._detection(), shell.report, port, "its process has ended")
        return True

    def _crash_secondary(self) -> bool:
        seat = self.secondary
        if seat is None or not seat.alive or not self.primary.alive:
            return False
        self._excused = True
        seat.kill()
        port = self._ports[seat.name]
        self.schedule.after(self._detection(), self._receiver.lose_guest)
        self.schedule.after(self._detection(), self._reports, port)
        return True

    def _reports(self, port: Port) -> None:
        if port.role != LOST:
            self.shell.report(port, "its process has ended")

    def _detection(self) -> float:
        return self._chance.random() * self.scenario.detection

    def _crash_proxy(self, downtime: float) -> bool:
        seat = self.secondary
        if seat is None or not seat.alive or not self.primary.alive or self._shifted or self.shell.dead:
            return False
        if self.shell.promoting or self.shell.secondary is None:
            return False
        self.shell.crash()
        self.oracle.forget()
        self._disturb(self.schedule.now + downtime + 10)
        seat.lenient = True
        self.schedule.after(downtime, self._restart_proxy)
        return True

    def _restart_proxy(self) -> None:
        """Start again beside guests that run on; what it held is lost."""
        for port in self._ports.values():
            port.stuck_until = 0.0
            port.failure = ""
        self.shell = self._new_shell()
        self.backend = self._new_backend()
        if not self.primary.alive or self.secondary is None or not self.secondary.alive:
            self._excused = True
        self.shell.start()
        for seat in (self.primary, self.secondary):
            if seat is not None and not seat.alive:
                self._reports(self._ports[seat.name])
        self.note("the proxy starts again")

    def _hang(self, seat: Seat | None, until: float) -> bool:
        if seat is None or not seat.alive:
            return False
        self._excused = True
        seat.hang(until)
        self._disturb(until)
        return True

    def _links_of(self, side: int) -> tuple[Link, ...]:
        if side == CLIENT:
            return self._links[CLIENT]
        seat = self.primary if side == PRIMARY else self.secondary
        return () if seat is None else (seat.out, seat.inward)

    def _hurt_links(self, kind: str, until: float) -> bool:
        links = self._links_of(_CUTS[kind] if kind in _CUTS else _SLOWS[kind])
        for link in links:
            if kind in _CUTS:
                link.cut(until)
            else:
                link.slow_down(until, 20_000.0)
        return bool(links)

    def _fill(self, side: int, until: float) -> bool:
        shell = self.shell
        port = {CLIENT: shell.client, PRIMARY: shell.primary, SECONDARY: shell.secondary}[side]
        if port is None or shell.dead:
            return False
        if side == SECONDARY:
            self._disturb(until)
            self._excused = True
        port.stuck_until = max(port.stuck_until, until)
        return True

    def _hurt_channel(self, kind: str, event: Event) -> bool:
        session = self.backend.session
        if session is None or not session.channels or self.backend.over:
            return False
        channel = session.channels[event.who % len(session.channels)]
        self._excused = True
        self._disturb(self.schedule.now + event.length)
        if kind == kinds.BREAK_CHANNEL:
            channel.end("it broke")
            if event.size == 20:
                self.backend.cut_off(self.schedule.now + 0.3)
        else:
            for channel in session.channels:
                channel.stall(self.schedule.now + event.length)
        return True

    def _protect_again(self) -> bool:
        """Take a new guest, of no state yet, as the secondary."""
        shell = self.shell
        if shell.secondary is not None or shell.dead or not self.primary.alive or shell.promoting:
            return False
        if self.secondary is not None and self.secondary.alive:
            return False  # it is still being fenced
        self.secondary = self._new_seat(SECONDARY, self.scenario.secondary_link)
        self.secondary.lenient = True
        self._receiver = self._new_receiver(self.secondary)
        port = self._ports[self.secondary.name]
        chance = random.Random(self._chance.getrandbits(32))
        self.backend = Backend(
            self.schedule, shell, self.primary, self._receiver, self.scenario.wiring, chance
        )
        shell.protect(port, self.backend)
        return True

    def _upset(self, event: Event, until: float) -> None:
        machines: list[Client | SeatedGuest] = [self.client, self.primary.guest]
        if self.secondary is not None:
            machines.append(self.secondary.guest)
        machine = machines[event.who % len(machines)]
        if event.kind == kinds.SEGMENT_SIZE:
            machine.mss = event.size
        else:
            machine.reading = False
            self.schedule.at(until, self._read_again)

    def _read_again(self) -> None:
        """Let all applications read: a checkpoint carries to the other guest that one does not."""
        self.client.reading = True
        self.client.act()
        self._client_polls()
        for seat in (self.primary, self.secondary):
            if seat is not None and seat.alive:
                seat.guest.reading = True
                if seat.runs:
                    seat.guest.serve()
                    seat.wake()

    # Peace

    @property
    def can_lose_primary(self) -> bool:
        """Whether the secondary can take over at this very moment."""
        secondary = self.secondary
        return (
            secondary is not None
            and secondary.runs
            and self.primary.alive
            and not self.lost_service
            and not self.shell.promoting
            and not self.shell.dead
            and self.shell.proxy.protected
            and self.shell.secondary is not None
            and not self.shell.secondary.failure
            and self.schedule.now >= self._disturbed_until
        )

    def lose_primary_in_peace(self) -> None:
        """Let the primary die now, and nothing else befall the world, ever."""
        self._peace = True
        self._pending = 0
        self._excused = False
        self._last_event = self.schedule.now
        self._calm_down()
        self.primary.kill()
        self.shell.report(self._ports[self.primary.name], "its process has ended")
        self._read_again()
        self.client.ask_where_it_stands()
        self._client_polls()

    # What the oracle tells

    def promoted(self) -> None:
        """Note that the secondary is the primary from now on. Raises Contradiction if both live."""
        if self.primary.alive:
            raise Contradiction("the secondary takes over, and the primary is alive")
        assert self.secondary is not None
        self.note("the secondary takes over")
        self.primary = self.secondary
        self.secondary = None
        self._shifted = True

    def ended(self, why: str) -> None:
        """Note that nobody serves any more. Raises Contradiction if there was no cause."""
        self.lost_service = why
        self.note(f"the service is lost: {why}")
        if not self._excused:
            raise Contradiction(f"the service was lost by a single death: {why}")

    # A run

    def run(self) -> None:
        """Live until all is done. Raises Contradiction, or whatever a bug raises."""
        schedule = self.schedule
        limit = PATIENCE
        while schedule.steps < STEPS:
            if self.lost_service:
                return
            if not self._pending:
                if schedule.steps % _LOOK_EVERY == 0 and self.client.done and self._settled():
                    break
                limit = max(self._last_event, self._disturbed_until) + PATIENCE
            if not schedule.step(limit if not self._pending else math.inf):
                self._stuck(limit)
            if self.probe is not None:
                self.probe()
        else:
            raise Contradiction(f"{STEPS} things happened, and still it goes on")
        self.client.check_history()
        self.oracle.check_account()

    def _settled(self) -> bool:
        """Whether nothing is under way any more that must come to an end."""
        shell = self.shell
        if shell.dead:
            return False
        proxy = shell.proxy
        return proxy.held_frames == 0 and (shell.secondary is None or proxy.protected)

    def _stuck(self, limit: float) -> None:
        raise Contradiction(
            f"nothing comes of it by {limit:.1f} s: {self.shell.state()}; client: {self.client.state()}"
        )

    def note(self, text: str) -> None:
        """Put a line into the trace."""
        if self.tracing:
            self.trace.append(f"{self.schedule.now:.6f} {text}")

    def note_frame(self, role: int, inward: bool, data: bytes) -> None:
        """Put a frame into the trace."""
        frame = parse_frame(data, 0, False)
        what = "other" if frame.kind == OPAQUE else str(Seen(data))
        self.note(f"{SIDE_NAMES[role]} {'->' if inward else '<-'} {what}")


_CUTS: Final = {
    kinds.PARTITION_CLIENT: CLIENT,
    kinds.PARTITION_PRIMARY: PRIMARY,
    kinds.PARTITION_SECONDARY: SECONDARY,
}
_SLOWS: Final = {kinds.SLOW_CLIENT: CLIENT, kinds.SLOW_SECONDARY: SECONDARY}
_STUCK: Final = {
    kinds.STUCK_CLIENT: CLIENT,
    kinds.STUCK_PRIMARY: PRIMARY,
    kinds.STUCK_SECONDARY: SECONDARY,
}
