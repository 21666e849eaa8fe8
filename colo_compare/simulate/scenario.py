"""What one seed stands for: a world, what its client wants, and what befalls it."""

import math
import random
from dataclasses import dataclass, replace
from typing import Final

from colo_compare.core.settings import BLOCK, Settings
from colo_compare.simulate.backend import Wiring
from colo_compare.simulate.links import Weather

# What the client wants
CALL: Final = "call"
DATAGRAM: Final = "datagram"
PING: Final = "ping"
HANG_UP: Final = "hang up"
WISHES: Final = (CALL, DATAGRAM, PING, HANG_UP)

# What befalls the world
CRASH_PRIMARY: Final = "primary crashes"
CRASH_SECONDARY: Final = "secondary crashes"
CRASH_PROXY: Final = "proxy crashes"
HANG_PRIMARY: Final = "primary hangs"
HANG_SECONDARY: Final = "secondary hangs"
PARTITION_CLIENT: Final = "client cut off"
PARTITION_PRIMARY: Final = "primary cut off"
PARTITION_SECONDARY: Final = "secondary cut off"
SLOW_CLIENT: Final = "slow client link"
SLOW_SECONDARY: Final = "slow secondary link"
STUCK_CLIENT: Final = "client port full"
STUCK_PRIMARY: Final = "primary port full"
STUCK_SECONDARY: Final = "secondary port full"
BREAK_CHANNEL: Final = "channel breaks"
STALL_CHANNEL: Final = "channel stalls"
CHECKPOINT: Final = "operator's checkpoint"
PROMOTE: Final = "operator's promotion"
PROTECT: Final = "new secondary"
STOP_READING: Final = "application stops reading"
SEGMENT_SIZE: Final = "other segment size"

_LIKELY: Final = (
    (CRASH_PRIMARY, 24),
    (CRASH_SECONDARY, 6),
    (CRASH_PROXY, 7),
    (HANG_PRIMARY, 4),
    (HANG_SECONDARY, 4),
    (PARTITION_CLIENT, 4),
    (PARTITION_PRIMARY, 3),
    (PARTITION_SECONDARY, 5),
    (SLOW_CLIENT, 3),
    (SLOW_SECONDARY, 4),
    (STUCK_CLIENT, 3),
    (STUCK_PRIMARY, 3),
    (STUCK_SECONDARY, 4),
    (BREAK_CHANNEL, 8),
    (STALL_CHANNEL, 4),
    (CHECKPOINT, 10),
    (PROMOTE, 4),
    (PROTECT, 12),
    (STOP_READING, 5),
    (SEGMENT_SIZE, 5),
)
_KINDS: Final = [kind for kind, _ in _LIKELY]
_WEIGHTS: Final = [weight for _, weight in _LIKELY]

# The faults that may be aimed at a moment of a checkpoint instead of a time
_AIMED: Final = frozenset((CRASH_PRIMARY, CRASH_SECONDARY, CRASH_PROXY, HANG_PRIMARY, HANG_SECONDARY,
                           BREAK_CHANNEL, STALL_CHANNEL, PROMOTE))  # fmt: skip


@dataclass(frozen=True)
class Event:
    """Something that a seed has happen. Each has all its numbers with it, so that any may be left out."""

    at: float  # seconds
    kind: str
    aimed: bool = False  # not then, but `delay` after the first checkpoint after that was asked for
    delay: float = 0.0  # seconds
    length: float = 0.0  # seconds
    who: int = 0
    text: bytes = b""  # of a call: the kinds of its requests
    size: int = 0
    flag: bool = False

    def __str__(self) -> str:
        if self.kind in WISHES:
            more = {CALL: f" {self.text.decode()} size {self.size}", DATAGRAM: f" {self.text.decode()}"}
            return f"{self.at:.3f} {self.kind}{more.get(self.kind, '')}"
        when = f", {self.delay * 1000:.2f} ms into a checkpoint" if self.aimed else ""
        length = f", for {self.length:.3f} s" if self.length else ""
        return f"{self.at:.3f} {self.kind}{when}{length}"


@dataclass(frozen=True)
class GuestTraits:
    """How one guest differs from any other."""

    mss: int = 100
    think: float = 0.0
    jitter: int = 0
    scale: int = 2


@dataclass(frozen=True)
class Scenario:
    """Everything that a seed decides. The seed also drives the chance in the machines and links."""

    seed: int
    settings: Settings
    version: int  # of IP
    times: bool  # the client uses timestamps
    client_link: Weather
    primary_link: Weather
    secondary_link: Weather
    wiring: Wiring
    guests: tuple[GuestTraits, ...]  # in the order in which they come; the last one stands for all others
    client_mss: int
    pages: int  # of a guest's memory
    room: int  # receive buffer of each socket, bytes; the client takes answers whole
    embedded: bool  # the guests are embedded ones, not the model
    same_isn: bool  # both guests draw the same numbers
    port_room: int
    detection: float  # seconds until a death is noticed
    events: tuple[Event, ...]

    def only(self, indices: tuple[int, ...]) -> "Scenario":
        """Give the same with these events alone."""
        return replace(self, events=tuple([self.events[index] for index in indices]))

    def calm(self) -> "Scenario":
        """Give the same on a network without faults."""
        return replace(
            self,
            client_link=self.client_link.calm(),
            primary_link=self.primary_link.calm(),
            secondary_link=self.secondary_link.calm(),
        )

    @property
    def faults(self) -> list[Event]:
        """What befalls the world."""
        return [event for event in self.events if event.kind not in WISHES]


def draw(seed: int) -> Scenario:
    """Give what a seed stands for: mostly a short life with a fault or two, sometimes a long one."""
    chance = random.Random(seed)
    long = chance.random() < 0.1
    span = chance.choice((2.0, 6.0)) if long else chance.choice((0.02, 0.1, 0.4, 1.0))
    big = chance.random() < (0.3 if long else 0.06)  # bodies and segments of a size that has to be cut
    events = _wishes(chance, span, chance.randint(4, 10) if long else chance.randint(1, 3), big)
    count = chance.randint(2, 10) if long else chance.choice((0, 1, 1, 1, 2, 2, 3))
    events += _faults(chance, span, count, (1400, 8000, 30000) if big else (20, 50, 100, 400))
    tight = chance.random() < 0.15
    scenario = Scenario(
        seed=seed,
        settings=Settings(
            compare_timeout=chance.choice((0.3, 0.5, 1.0)),
            checkpoint_timeout=chance.choice((2.0, 4.0)),
            retry_interval=0.1,
            announce=chance.random() < 0.3,
            coalesce=chance.choice((0.0, 0.0, 0.02)),
            min_interval=chance.choice((0.0, 0.0, 0.05)),
            max_interval=chance.choice((math.inf, math.inf, 0.5)),
            mirror_retry=chance.choice((0.02, 0.02, math.inf)),
            max_held_frames=chance.choice((8, 20)) if tight else 4096,
            max_held_bytes=chance.choice((4000, 64 << 20)) if tight else 64 << 20,
            max_flow_bytes=chance.choice((2000, 8 << 20)) if tight else 8 << 20,
        ),
        version=chance.choice((4, 4, 6)),
        times=chance.random() < 0.8,
        client_link=_weather(chance, chance.choice((0.0002, 0.002, 0.01))),
        primary_link=_weather(chance, 0.00005, local=True),
        secondary_link=_weather(chance, chance.choice((0.00005, 0.0005, 0.003)), remote=True),
        wiring=Wiring(
            channels=chance.choice((1, 1, 2, 3)),
            delay=chance.choice((0.0001, 0.0005, 0.003)),
            bytes_per_second=chance.choice((1e6, 1e8, 1e9)),
            presend_interval=chance.choice((math.inf, math.inf, 0.1, 0.02)) if span < 1 else math.inf,
            compression=chance.choice((0, 0, 0, 1)),
            checksums=chance.random() < 0.7,
        ),
        guests=tuple([_traits(chance, big) for _ in range(3)]),
        client_mss=chance.choice((50, 100, 400)),
        pages=384 if big else 96,
        room=60000 if big else 3000,
        embedded=False,
        same_isn=chance.random() < 0.1,
        port_room=chance.choice((1024, 1024, 16)),
        detection=chance.choice((0.0, 0.002, 0.03)),
        events=tuple(sorted(events, key=lambda event: event.at)),
    )
    theme = random.Random(~seed).random()
    if theme < 0.12:
        return _halves(scenario)
    if theme < 0.2:
        return _results_only(scenario)
    if theme < 0.24:
        return _blocks(scenario)
    if theme > 0.94:
        return replace(scenario, embedded=True, version=4, room=60000, client_mss=400)
    return scenario


def _halves(scenario: Scenario) -> Scenario:
    """Let the guests differ in the middle of streams, and lose frames of both, large and small ones.

    So holes, parts of frames, repetitions and differences come together.
    """
    chance = random.Random(~scenario.seed ^ 0x4A1F)
    loss = chance.choice((0.02, 0.1, 0.2))
    calls = [
        Event(
            chance.random() * 0.2,
            CALL,
            text=bytes([chance.choice(b"HHHGU") for _ in range(chance.randint(1, 3))]),
            size=chance.choice((6, 20, 60)),
            flag=chance.random() < 0.5,
        )
        for _ in range(chance.randint(1, 3))
    ]
    events = [event for event in scenario.events if event.kind not in (CALL, SEGMENT_SIZE)]
    sizes = chance.choice(((100, 400), (400, 1400), (1400, 8000), (8000, 1400), (1400, 30000)))
    return replace(
        scenario,
        primary_link=replace(scenario.primary_link, loss=loss),
        secondary_link=replace(scenario.secondary_link, loss=chance.choice((0.0, loss))),
        guests=tuple([replace(traits, mss=chance.choice(sizes)) for traits in scenario.guests]),
        client_mss=400,
        room=60000,
        pages=384,
        events=tuple(sorted([*events, *calls], key=lambda event: event.at)),
    )


def _results_only(scenario: Scenario) -> Scenario:
    """Let the checkpointer tell of commits and failures only, as a foreign one does."""
    return replace(
        scenario,
        settings=replace(scenario.settings, reports_pause=False),
        wiring=replace(scenario.wiring, reports_steps=False),
    )


def _blocks(scenario: Scenario) -> Scenario:
    """Let the service rather stand still than be unprotected, and secondaries die while it is used."""
    chance = random.Random(~scenario.seed ^ 0xB10C)
    last = max(event.at for event in scenario.events)
    deaths = [
        Event(chance.random() * last, CRASH_SECONDARY, chance.random() < 0.5, chance.random() * 0.008)
        for _ in range(chance.randint(1, 2))
    ]
    return replace(
        scenario,
        settings=replace(scenario.settings, on_secondary_loss=BLOCK),
        events=tuple(sorted([*scenario.events, *deaths], key=lambda event: event.at)),
    )


def _weather(chance: random.Random, delay: float, *, local: bool = False, remote: bool = False) -> Weather:
    bad = chance.random() < (0.15 if local else 0.35)
    if not bad:
        return Weather(delay, chance.choice((0.0, delay)))
    return Weather(
        delay,
        jitter=0.0 if local else chance.choice((0.0, delay, 5 * delay)),
        loss=chance.choice((0.0, 0.01, 0.05, 0.2)) / (4 if local else 1),
        duplication=0.0 if local else chance.choice((0.0, 0.02)),
        reordering=0.0 if local and not remote else chance.choice((0.0, 0.02, 0.1)),
    )


def _traits(chance: random.Random, big: bool) -> GuestTraits:
    return GuestTraits(
        mss=chance.choice((1400, 8000, 30000) if big else (40, 100, 100, 400)),
        think=chance.choice((0.0, 0.0, 0.0, 0.001, 0.02)),
        jitter=chance.choice((0, 0, 3, 30)),
        scale=2 if chance.random() < 0.97 else 5,
    )


def _wishes(chance: random.Random, span: float, count: int, big: bool) -> list[Event]:
    events: list[Event] = []
    for _ in range(count):
        at = chance.random() * span
        kind = chance.choices(WISHES, (70, 15, 8, 7))[0]
        text = b""
        size = chance.choice((0, 3, 10, 30))
        if kind == CALL:
            if chance.random() < 0.06:
                text, size = b"X", 0
            else:
                letters = b"GGHHD" if big else b"GGGUUDCH"
                text = bytes([chance.choice(letters) for _ in range(chance.randint(1, 3))])
                if big:
                    size = chance.choice((10, 60, 100))
                elif b"H" in text:
                    size = min(size, 6)
        elif kind == DATAGRAM:
            text, size = bytes([chance.choice(b"GGD")]), 2
        events.append(
            Event(at, kind, who=chance.randrange(8), text=text, size=size, flag=chance.random() < 0.5)
        )
    return events


def _faults(chance: random.Random, span: float, count: int, sizes: tuple[int, ...]) -> list[Event]:
    events: list[Event] = []
    for _ in range(count):
        kind = chance.choices(_KINDS, _WEIGHTS)[0]
        events.append(
            Event(
                chance.random() * span * 1.2,
                kind,
                aimed=kind in _AIMED and chance.random() < 0.4,
                delay=chance.random() * chance.choice((0.0005, 0.002, 0.008, 0.03)),
                length=_length(chance, kind),
                who=chance.randrange(8),
                size=chance.choice(sizes),
            )
        )
        if kind in (CRASH_PRIMARY, CRASH_SECONDARY) and chance.random() < 0.4:
            events.append(Event(events[-1].at + 0.05 + chance.random() * 0.3, PROTECT))
    return events


def _length(chance: random.Random, kind: str) -> float:
    if kind in (CRASH_PRIMARY, CRASH_SECONDARY, CHECKPOINT, PROMOTE, PROTECT, BREAK_CHANNEL, SEGMENT_SIZE):
        return 0.0
    return chance.choice((0.001, 0.01, 0.1, 0.4, 1.5)) * (0.5 + chance.random())
