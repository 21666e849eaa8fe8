"""Random lives of a pair. A seed that fails here fails everywhere: run `Life(seed)` and read its story."""

import math
import random

import pytest

from colo_compare.core.settings import Settings
from colo_compare.core.sides import CLIENT
from tests.simulation.lives import Life
from tests.simulation.world import World

SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_client_never_notices(seed: int) -> None:
    Life(seed).run(steps=30)


@pytest.mark.parametrize("seed", range(12))
def test_losses_on_the_clients_side_cost_no_checkpoint(seed: int) -> None:
    """Guests that do not diverge and lose nothing: whatever the client's network does, nobody is copied."""
    chance = random.Random(seed)
    world = World(seed, Settings(compare_timeout=1.0, mirror_retry=math.inf), times=seed % 3 != 0)
    assert world.secondary is not None
    world.secondary.scale = world.primary.scale
    world.whole_checkpoint()
    world.client.call(b"GGG", 30, pipelined=seed % 2 == 0)
    world.poll()
    for _ in range(3000):
        links = world.links()
        if world.client.done:
            break
        if not links:
            world.advance(world.next_timer())
            continue
        inward, side = chance.choice(links)
        queue = (world.to_proxy if inward else world.from_proxy)[side]
        index = 0
        if side == CLIENT:
            index = chance.randrange(len(queue)) if chance.random() < 0.2 else 0
            fate = chance.random()
            if fate < 0.1:
                del queue[index]
                continue
            if fate < 0.15:
                queue.append(queue[index])
        world.deliver(inward, side, index)
        assert world.checkpoint == "comparing", "a checkpoint without a cause"
    assert world.client.done
    assert not any(world.proxy.proxy.counters.divergences.values())
