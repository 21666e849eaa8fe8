"""Everything there is in one run, and what befalls it."""

import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Final

from colo_compare.core.settings import BLOCK
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY, SIDE_NAMES
from colo_compare.guest.noise import Noise
from colo_compare.simulate.backend import Backend
from colo_compare.simulate.client import Client
from colo_compare.simulate.embedded import EmbeddedGuest, HttpClient
from colo_compare.simulate.fate import Fate
from colo_compare.simulate.hosts import Guest, guest_end
from colo_compare.simulate.links import Link, Weather
from colo_compare.simulate.oracle import Oracle
from colo_compare.simulate.packets import Seen
from colo_compare.simulate.port import Port
from colo_compare.simulate.receiver import Receiver
from colo_compare.simulate.scenario import GuestTraits, Scenario
from colo_compare.simulate.schedule import Alarm, Schedule
from colo_compare.simulate.seat import Seat, SeatedGuest
from colo_compare.simulate.shell import Shell
from colo_compare.simulate.tcp import Contradiction
from colo_compare.wire.frame import OPAQUE, parse_frame

PATIENCE: Final = 60.0  # virtual seconds in which everything must be done once nothing befalls the world
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
        self.chance: Final = random.Random(scenario.seed ^ 0x5EED)
        self._guests = 0
        self._isn_seed: Final = self.chance.getrandbits(32)
        self.fate: Final = Fate(self)
        self.shifted = False  # a promoted guest has numbers that only the proxy knows
        self.probe: Callable[[], None] | None = None  # called between any two things that happen
        self.oracle: Final = Oracle(self)
        client_seed = self.chance.getrandbits(32)
        self.client: Final = (
            HttpClient(client_seed, scenario.times)
            if scenario.embedded
            else Client(client_seed, scenario.times, scenario.version)
        )
        self.client.mss = scenario.client_mss
        self.client.room = scenario.room
        self._client_alarm: Final = Alarm(self.schedule, self.client.next_timer, self.client_polls)
        self._client_port: Final = Port("client", CLIENT, scenario.port_room)
        self._to_proxy: Final = self._link(scenario.client_link, self._arrives_from_client)
        to_client = self._link(scenario.client_link, self._client_takes)
        self._client_port.link = to_client.send
        self.links: Final = {CLIENT: (self._to_proxy, to_client)}
        self.ports: Final[dict[str, Port]] = {}
        self.primary = self.new_seat(PRIMARY, scenario.primary_link)
        self.secondary: Seat | None = self.new_seat(SECONDARY, scenario.secondary_link)
        self.receiver = self.new_receiver(self.secondary)
        self.shell = self.new_shell()
        self.backend = self.new_backend()
        self.shell.start()
        for event in scenario.events:
            self.fate.pending += 1
            self.schedule.at(event.at, self.fate.befall, event)
        if scenario.settings.on_secondary_loss == BLOCK:
            self.fate.watch_over()

    # Making things

    def _link(self, weather: Weather, arrive: Callable[[bytes], None]) -> Link:
        return Link(self.schedule, weather, self.chance.getrandbits(32), arrive)

    def new_seat(self, role: int, weather: Weather) -> Seat:
        """Make the next guest, with its links and its port."""
        traits = self.scenario.guests[min(self._guests, len(self.scenario.guests) - 1)]
        self._guests += 1
        seed = self._isn_seed if self.scenario.same_isn else self.chance.getrandbits(32)
        guest = self._new_embedded(seed, traits) if self.scenario.embedded else self._new_model(seed, traits)
        seat = Seat(self.schedule, guest, f"guest {self._guests}")
        port = Port(seat.name, role, self.scenario.port_room)
        self.ports[seat.name] = port
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

    def new_receiver(self, seat: Seat) -> Receiver:
        """Make the end of the checkpointer that serves a secondary."""
        chance = random.Random(self.chance.getrandbits(32))
        return Receiver(self.schedule, seat, chance, self.scenario.wiring.timeout)

    def new_shell(self) -> Shell:
        """Start a proxy between the ports there are."""
        return Shell(
            self.schedule,
            self.scenario.settings,
            self._client_port,
            self.ports[self.primary.name],
            None if self.secondary is None else self.ports[self.secondary.name],
            self.oracle,
            random.Random(self.chance.getrandbits(32)),
        )

    def new_backend(self) -> Backend:
        """Make the checkpointer of the pair there is."""
        chance = random.Random(self.chance.getrandbits(32))
        backend = Backend(
            self.schedule, self.shell, self.primary, self.receiver, self.scenario.wiring, chance
        )
        self.shell.backend = backend
        return backend

    # The client

    def client_polls(self) -> None:
        """Let the client do what is due."""
        self._client_sends(self.client.poll(self.schedule.now))

    def _client_sends(self, frames: list[bytes]) -> None:
        for frame in frames:
            self._to_proxy.send(frame)
        self._client_alarm.look()

    def _client_takes(self, frame: bytes) -> None:
        self._client_sends(self.client.receive(frame, self.schedule.now))

    def _arrives_from_client(self, frame: bytes) -> None:
        self.shell.arrive(self._client_port, frame)

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
            and not self.shell.failover.promoting
            and not self.shell.dead
            and self.shell.proxy.protected
            and self.shell.secondary is not None
            and not self.shell.secondary.failure
            and self.schedule.now >= self.fate.disturbed_until
        )

    def lose_primary_in_peace(self) -> None:
        """Let the primary die now, and nothing else befall the world, ever."""
        self.fate.peace = True
        self.fate.pending = 0
        self.fate.excused = False
        self.fate.last_event = self.schedule.now
        self.fate.calm_down()
        self.primary.kill()
        self.shell.failover.report(self.ports[self.primary.name], "its process has ended")
        self.fate.read_again()
        self.client.ask_where_it_stands()
        self.client_polls()

    # What the oracle tells

    def promoted(self) -> None:
        """Note that the secondary is the primary from now on. Raises Contradiction if both live."""
        if self.primary.alive:
            raise Contradiction("the secondary takes over, and the primary is alive")
        assert self.secondary is not None
        self.note("the secondary takes over")
        self.primary = self.secondary
        self.secondary = None
        self.shifted = True

    def ended(self, why: str) -> None:
        """Note that nobody serves any more. Raises Contradiction if there was no cause."""
        self.lost_service = why
        self.note(f"the service is lost: {why}")
        if not self.fate.excused:
            raise Contradiction(f"the service was lost by a single death: {why}")

    # A run

    def run(self) -> None:
        """Live until all is done. Raises Contradiction, or whatever a bug raises."""
        schedule = self.schedule
        limit = PATIENCE
        while schedule.steps < STEPS:
            if self.lost_service:
                return
            if not self.fate.pending:
                if schedule.steps % _LOOK_EVERY == 0 and self.client.done and self._settled():
                    break
                limit = max(self.fate.last_event, self.fate.disturbed_until) + PATIENCE
            if not schedule.step(limit if not self.fate.pending else math.inf):
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
