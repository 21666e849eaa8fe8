"""The core against everything at once: two guests with lives of their own, faulty links, checkpoints, deaths.

After every step, in a copy of the world, the primary dies, and the client must not notice. What else is
checked is in tests.simulation.world.
"""

import math

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from colo_compare.core.settings import Settings
from colo_compare.simulate.hosts import Machine
from tests.simulation.world import COMPARING, LOADED, PAUSED, REQUESTED, World, unlucky

SEEDS = st.integers(0, 0xFFFF)


class Pair(RuleBasedStateMachine):
    """One world; each rule is one thing that can happen in it."""

    world: World

    @initialize(
        seed=SEEDS,
        times=st.booleans(),
        version=st.sampled_from([4, 6]),
        reports_pause=st.booleans(),
        reports_load=st.booleans(),
        coalesce=st.sampled_from([0.0, 0.02]),
        mirror_retry=st.sampled_from([0.02, math.inf]),
    )
    def begin(
        self, seed: int, times: bool, version: int, reports_pause: bool, reports_load: bool, coalesce: float,
        mirror_retry: float,
    ) -> None:  # fmt: skip
        chosen = Settings(
            compare_timeout=0.5,
            checkpoint_timeout=5.0,
            retry_interval=0.1,
            coalesce=coalesce,
            mirror_retry=mirror_retry,
            reports_pause=reports_pause,
        )
        self.world = World(seed, chosen, times=times, version=version, reports_load=reports_load)
        self.world.whole_checkpoint()

    def in_state(self, *states: str) -> bool:
        return self.world.checkpoint in states

    def machine(self, which: int) -> Machine:
        found: list[Machine] = [self.world.client, self.world.primary]
        if self.world.secondary is not None:
            found.append(self.world.secondary)
        return found[which % len(found)]

    # The client wants something

    @rule(
        kinds=st.lists(st.sampled_from(b"GUDC"), min_size=1, max_size=3),
        size=st.integers(0, 12),
        pipelined=st.booleans(),
    )
    def call(self, kinds: list[int], size: int, pipelined: bool) -> None:
        self.world.client.call(bytes(kinds), size, pipelined)
        self.world.poll()

    @rule()
    def call_for_a_reset(self) -> None:
        self.world.client.call(b"X", 0, pipelined=False)
        self.world.poll()

    @precondition(lambda self: self.world.client.calls)
    @rule(which=st.integers(0, 9))
    def hang_up(self, which: int) -> None:
        self.world.client.hang_up(which)
        self.world.poll()

    @rule(kind=st.sampled_from([b"G", b"D"]))
    def ask_datagram(self, kind: bytes) -> None:
        self.world.client.ask_datagram(kind, 2, self.world.now)
        self.world.poll()

    @rule()
    def ping(self) -> None:
        self.world.client.ping(self.world.now)
        self.world.poll()

    # The network

    @rule(steps=st.integers(1, 30), seed=SEEDS)
    def quiet_traffic(self, steps: int, seed: int) -> None:
        unlucky(self.world, steps, 0.0, 0.0, seed)

    @rule(
        steps=st.integers(1, 30),
        loss=st.sampled_from([0.0, 0.1, 0.3]),
        shuffle=st.sampled_from([0.1, 0.5]),
        seed=SEEDS,
    )
    def traffic(self, steps: int, loss: float, shuffle: float, seed: int) -> None:
        unlucky(self.world, steps, loss, shuffle, seed)

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.6, 3.0]))
    def wait(self, seconds: float) -> None:
        self.world.advance(self.world.now + seconds)

    @rule(which=st.integers(0, 2), mss=st.sampled_from([20, 60, 400]))
    def segment_otherwise(self, which: int, mss: int) -> None:
        self.machine(which).mss = mss

    @rule(which=st.integers(0, 2))
    def read_or_stop_reading(self, which: int) -> None:
        machine = self.machine(which)
        machine.reading = not machine.reading

    # Checkpoints

    @rule()
    def ask_checkpoint(self) -> None:
        self.world.ask_checkpoint()

    @precondition(lambda self: self.in_state(REQUESTED))
    @rule()
    def pause(self) -> None:
        self.world.pause()

    @precondition(lambda self: self.in_state(PAUSED) and self.world.reports_load)
    @rule()
    def load(self) -> None:
        self.world.load()

    @precondition(
        lambda self: self.in_state(LOADED) or (self.in_state(PAUSED) and not self.world.reports_load)
    )
    @rule()
    def commit(self) -> None:
        self.world.commit()

    @precondition(lambda self: self.in_state(REQUESTED, PAUSED))
    @rule(intact=st.booleans())
    def abort(self, intact: bool) -> None:
        self.world.abort(intact)

    @precondition(lambda self: not self.in_state(COMPARING))
    @rule()
    def whole_checkpoint(self) -> None:
        self.world.whole_checkpoint()

    # Death

    @precondition(lambda self: self.world.secondary is not None and self.world.stands_behind)
    @rule()
    def kill_primary(self) -> None:
        self.world.kill_primary()

    @precondition(lambda self: self.world.secondary is not None)
    @rule()
    def kill_secondary(self) -> None:
        self.world.kill_secondary()

    @precondition(lambda self: self.world.secondary is None)
    @rule()
    def protect_again(self) -> None:
        self.world.protect_again()

    @precondition(lambda self: self.world.secondary is not None and not self.world.shifted)
    @rule()
    def restart_proxy(self) -> None:
        self.world.restart_proxy()

    # What must hold after every step

    @invariant()
    def the_client_does_not_notice_a_death(self) -> None:
        self.world.survives()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.run_out()


TestPair = Pair.TestCase
TestPair.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
