"""Random lives of a loop: guests die and are replaced in any order; whatever happens, it is sound."""

import random

import pytest
import trio
from trio.testing import MockClock

from colo_compare.core.sides import PRIMARY, SECONDARY
from colo_compare.errors import ColoCompareError
from colo_compare.ports.memory import MemoryPort, memory_pair
from tests.rig import SETTINGS, Nothing, Rig, seen

STEPS = 40


async def half_a_second() -> None:
    await trio.sleep(0.5)


class Life:
    """One loop, the far ends of its guests, and what must be true of them."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig = rig
        self.random = random.Random(seed)
        self.guests: dict[str, MemoryPort] = {
            "memory:primary": rig.primary,
            "memory:secondary": rig.secondary,
        }
        self.count = 0
        self.attempts = 0
        self.story: list[str] = []

    @property
    def primary(self) -> MemoryPort:
        return self.guests[self.rig.loop.primary.port.url]

    @property
    def secondary(self) -> MemoryPort | None:
        link = self.rig.loop.secondary
        return None if link is None else self.guests[link.port.url]

    async def step(self, nursery: trio.Nursery) -> None:
        deeds = [self.say, self.say, self.pause, self.lose_primary, self.lose_secondary, self.report]
        deed = self.random.choice([*deeds, None, None])
        if deed is None:
            await self.protect(nursery)
        else:
            await deed()
        await self.rig.settle()

    async def say(self) -> None:
        """What the guests say is seen by the client once, and as often as the primary said it."""
        rig, talk = self.rig, self.rig.talk
        self.story.append("say")
        self.count += 1
        word = b"word %d" % self.count
        seen(rig.client)
        await rig.send(self.primary, talk.primary.datagram(word))
        if self.secondary is not None:
            await rig.send(self.secondary, talk.secondary.datagram(word))
        if rig.loop.proxy.protected or rig.loop.proxy.mode == "solo":
            assert sum(word in frame for frame in seen(rig.client)) == 1, self.story

    async def pause(self) -> None:
        self.story.append("pause")
        await self.rig.jump(self.random.choice([0.01, 1.0, SETTINGS.compare_timeout]))

    async def lose_primary(self) -> None:
        if self.rig.loop.proxy.protected:
            self.story.append("lose primary")
            await self.primary.aclose()

    async def lose_secondary(self) -> None:
        if self.secondary is not None:
            self.story.append("lose secondary")
            await self.secondary.aclose()

    async def report(self) -> None:
        """The backend says so before any port does, and maybe in the middle of an attempt."""
        side = self.random.choice([PRIMARY, SECONDARY, SECONDARY])
        if side == SECONDARY or self.rig.loop.proxy.protected:
            self.story.append(f"report {side}")
            await self.rig.backend.handlers.guest_lost(side, "no heartbeat")

    async def protect(self, nursery: trio.Nursery) -> None:
        self.attempts += 1
        name = f"guest{self.attempts}"
        near, far = memory_pair(name=name)
        await far.open()
        self.guests[near.url] = far
        backend = self.rig.backend
        fate = self.random.choice(["good", "good", "good", "slow", "hangs", "dies"])
        self.story.append(f"protect, {fate}")
        script = {"slow": half_a_second, "hangs": trio.sleep_forever}
        backend.on_protect = script.get(fate, trio.lowlevel.checkpoint)
        if fate == "dies":
            await far.aclose()
        nursery.start_soon(self._attempt, near)

    async def _attempt(self, near: MemoryPort) -> None:
        try:
            await self.rig.loop.protection.protect(near, Nothing(), 2.0)
        except ColoCompareError as error:
            self.story.append(str(error))

    def check(self) -> None:
        loop = self.rig.loop
        assert [link.name for link in loop.links] == ["client", "primary", "secondary"], self.story
        roles = sorted(link.role_name for link in loop.links)
        whole = ["client", "primary", "secondary"]
        assert roles == (["client", "lost", "primary"] if loop.secondary is None else whole), self.story
        assert (loop.proxy.mode == "protect") == (loop.secondary is not None), self.story
        counters = loop.proxy.counters
        kept = counters.released_total() + counters.discarded_total() + loop.proxy.held_frames
        assert counters.received[PRIMARY] == kept, self.story
        assert self.rig.error is None, self.story


@pytest.mark.parametrize("seed", range(60))
async def test_a_life(mock_clock: MockClock, seed: int) -> None:
    rig = Rig(mock_clock)
    async with rig.running(), trio.open_nursery() as nursery:
        life = Life(rig, seed)
        for _ in range(STEPS):
            await life.step(nursery)
            life.check()
        # At last nobody hinders it.
        await rig.jump(10.0)
        if rig.loop.secondary is None:
            rig.backend.on_protect = trio.lowlevel.checkpoint
            near, far = memory_pair(name="last")
            await far.open()
            await rig.loop.protection.protect(near, Nothing())
        assert rig.loop.proxy.protected, life.story
        nursery.cancel_scope.cancel()
