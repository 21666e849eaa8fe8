"""A life: what happens to one world, drawn from one seed."""

import math
import random

from colo_compare.core.settings import Settings
from colo_compare.simulate.hosts import Machine
from tests.simulation.world import COMPARING, LOADED, PAUSED, REQUESTED, World, unlucky

CLIENT_WANTS = ("call", "call", "call", "call", "datagram", "datagram", "ping", "reset", "hang up")
NETWORK_DOES = ("traffic", "traffic", "traffic", "wait")
CHECKPOINTER_DOES = ("step", "step", "whole")
MACHINES_DO = ("mss", "reading")
FATE_DOES = ("kill primary", "kill secondary", "protect", "protect", "restart")


class Life:
    """Draws steps and does them; `story` tells them."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        chance = self.chance
        settings = Settings(
            compare_timeout=0.5,
            checkpoint_timeout=5.0,
            retry_interval=0.1,
            announce=chance.random() < 0.5,
            reports_pause=chance.random() < 0.7,
            coalesce=chance.choice((0.0, 0.02)),
            mirror_retry=chance.choice((0.02, math.inf)),
        )
        self.world = World(
            seed,
            settings,
            times=chance.random() < 0.8,
            version=chance.choice((4, 6)),
            reports_load=chance.random() < 0.5,
        )
        self.world.whole_checkpoint()
        self.story: list[str] = []

    def run(self, steps: int) -> None:
        """Live, and check after every step that the client would not notice the death of the primary."""
        for number in range(steps):
            self._step()
            self.world.survives()
            if number % 8 == 0:
                self.world.completes()
        self.world.run_out()

    def _step(self) -> None:
        chance = self.chance
        kind = chance.choices(
            (CLIENT_WANTS, NETWORK_DOES, CHECKPOINTER_DOES, MACHINES_DO, FATE_DOES), (20, 40, 20, 6, 12)
        )[0]
        what = chance.choice(kind)
        self.story.append(f"{self.world.now:.3f} {self.world.checkpoint} {what}")
        if kind is CLIENT_WANTS:
            self._want(what)
        elif kind is NETWORK_DOES:
            self._network(what)
        elif kind is CHECKPOINTER_DOES:
            self._checkpointer(what)
        elif kind is MACHINES_DO:
            self._machine(what)
        else:
            self._fate(what)
        self.world.poll()

    def _want(self, what: str) -> None:
        chance, world = self.chance, self.world
        if what == "reset":
            world.client.call(b"X", 0, pipelined=False)
        elif what == "hang up":
            world.client.hang_up(chance.randrange(64))
        elif what == "call":
            kinds = bytes(chance.choice(b"GGUUDDC") for _ in range(chance.randint(1, 3)))
            world.client.call(kinds, chance.choice((0, 3, 10, 30)), chance.random() < 0.5)
        elif what == "datagram":
            world.client.ask_datagram(chance.choice((b"G", b"G", b"D")), 2, world.now)
        else:
            world.client.ping(world.now)

    def _network(self, what: str) -> None:
        chance = self.chance
        if what == "wait":
            self.world.advance(self.world.now + chance.choice((0.001, 0.05, 0.6)))
        else:
            loss, shuffle = chance.choice((0, 0, 0.1, 0.3)), chance.choice((0, 0, 0.1, 0.5))
            unlucky(self.world, chance.randint(1, 40), loss, shuffle, chance.getrandbits(16))

    def _checkpointer(self, what: str) -> None:
        chance, world = self.chance, self.world
        if what == "whole":
            world.whole_checkpoint()
        elif world.checkpoint == COMPARING:
            world.ask_checkpoint()
        elif world.checkpoint == REQUESTED:
            world.pause()
        elif world.checkpoint == PAUSED and chance.random() < 0.2:
            world.abort(chance.random() < 0.8)
        elif world.checkpoint == PAUSED and world.reports_load:
            world.load()
        else:
            assert world.checkpoint in (PAUSED, LOADED)
            world.commit()

    def _machine(self, what: str) -> None:
        machines: list[Machine] = [self.world.client, self.world.primary]
        if self.world.secondary is not None:
            machines.append(self.world.secondary)
        machine = self.chance.choice(machines)
        if what == "mss":
            machine.mss = self.chance.choice((20, 50, 100, 400))
        else:
            machine.reading = not machine.reading

    def _fate(self, what: str) -> None:
        world = self.world
        if world.secondary is None:
            if what == "protect":
                world.protect_again()
        elif what == "kill primary" and world.stands_behind:
            world.kill_primary()
        elif what == "kill secondary":
            world.kill_secondary()
        elif what == "restart" and not world.shifted:
            world.restart_proxy()
