"""One seed, one run: what came of it, and what of it was needed for that."""

import os
import random
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from colo_compare.simulate.scenario import Scenario, draw
from colo_compare.simulate.world import World

_PROBES: Final = 24
"""Moments of a probed run, at most, at which the primary dies in a copy of the world."""
_TRIES: Final = 150
"""Runs, at most, to shrink a failing one."""


@dataclass
class Result:
    """What came of one run."""

    seed: int
    violation: str = ""
    faults: Counter[str] = field(default_factory=Counter)
    lost: bool = False  # the service ended, by more than one death
    released: int = 0  # frames that were checked on their way to the client
    probes: int = 0
    seconds: float = 0.0  # virtual ones
    trace: list[str] = field(default_factory=list)


def run(scenario: Scenario, *, tracing: bool = False, probed: bool = False) -> Result:
    """Run it to its end."""
    result = Result(scenario.seed)
    world: World | None = None
    prober: Prober | None = None
    try:
        world = World(scenario, tracing=tracing)
        if probed:
            prober = Prober(world)
        world.run()
    except Exception as error:  # whatever the core, or the oracle, raises is a finding
        result.violation = describe(error)
    if world is not None:
        result.faults = world.faults
        result.lost = bool(world.lost_service)
        result.released = world.oracle.released_frames
        result.seconds = world.schedule.now
        result.trace = world.trace
    if prober is not None:
        result.probes = prober.probes
    return result


def describe(error: Exception) -> str:
    """Give one line: what was raised, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    where = next((frame for frame in reversed(frames) if "/core/" in frame.filename), frames[-1])
    name = type(error).__name__
    text = str(error).replace("\n", " ")
    if name == "Contradiction":
        return text
    return f"{name}: {text} ({Path(where.filename).name}:{where.lineno})"


class Prober:
    """The strict oracle: at many moments of a run the primary dies in a copy of the whole world.

    The copy is a child process: a fork copies everything that there is, compiled code's objects too.
    """

    def __init__(self, world: World) -> None:
        self._world: Final = world
        self._chance: Final = random.Random(world.scenario.seed ^ 0xF0)
        self._next = 1
        self.probes = 0
        world.probe = self._look

    def _look(self) -> None:
        world = self._world
        if world.schedule.steps < self._next or self.probes >= _PROBES or not world.can_lose_primary:
            return
        self._next = world.schedule.steps + self._chance.randint(1, 60)
        self.probes += 1
        found = in_child(self._die)
        if found:
            at = f"{world.schedule.now:.6f}"
            raise AssertionError(f"had the primary died at {at} s (step {world.schedule.steps}): {found}")

    def _die(self) -> str:
        world = self._world
        world.probe = None
        try:
            world.lose_primary_in_peace()
            world.run()
        except Exception as error:
            return describe(error)
        return world.lost_service


def in_child(task: Callable[[], str]) -> str:
    """Run something in a copy of this process, and give the text that came of it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            os.write(writing, task().encode()[:4000])
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        text = stream.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return text or ("" if status == 0 else f"the copy ended with status {status}")


@dataclass(frozen=True)
class Shrunk:
    """The least that still fails."""

    kept: tuple[int, ...]  # indices of the events
    calm: bool  # also without faults of the network
    scenario: Scenario
    violation: str


def shrink(seed: int, *, probed: bool = False) -> Shrunk:
    """Leave out events of a failing run as long as it still fails: halves first, then single ones."""
    whole = draw(seed)
    kept = tuple(range(len(whole.events)))
    calm = False
    violation = run(whole, probed=probed).violation
    tries = 0

    def fails(indices: tuple[int, ...], still: bool) -> str:
        nonlocal tries
        tries += 1
        scenario = whole.only(indices)
        return run(scenario.calm() if still else scenario, probed=probed).violation

    if found := fails(kept, True):
        calm, violation = True, found
    size = max(len(kept) // 2, 1)
    while size and tries < _TRIES:
        at = 0
        smaller = False
        while at < len(kept) and tries < _TRIES:
            rest = kept[:at] + kept[at + size :]
            if found := fails(rest, calm):
                kept, violation, smaller = rest, found, True
            else:
                at += size
        if not smaller or size > 1:
            size = size // 2 if size > 1 else 0
    scenario = whole.only(kept)
    return Shrunk(kept, calm, scenario.calm() if calm else scenario, violation)


def replay(seed: int, only: tuple[int, ...] | None, calm: bool) -> Scenario:
    """Give what a seed stands for, or the part of it that `shrink` kept. Raises IndexError."""
    scenario = draw(seed)
    if only is not None:
        scenario = scenario.only(only)
    return scenario.calm() if calm else scenario
