"""A survey of a running loop, for as long as somebody waits for it."""

from collections.abc import AsyncGenerator
from typing import Any, Final

import trio

from colo_compare.core.counters import NOT_COMPARED
from colo_compare.core.settings import OBSERVE
from colo_compare.core.sides import PRIMARY
from colo_compare.errors import ControlRefused
from colo_compare.loop import Loop
from colo_compare.suitability.survey import Hold, Surveyor

TICK: Final = 1.0  # seconds between two signs of life
LONGEST: Final = 7 * 86400.0  # seconds


async def watch(loop: Loop, duration: float, checkpoint_time: float) -> AsyncGenerator[dict[str, Any], None]:
    """Give ``{"elapsed": SECONDS}`` each second, and at the end ``{"survey": ...}``.

    Raises ControlRefused where the loop does not observe, or stops to.
    """
    if not 0 < duration <= LONGEST or not 0 < checkpoint_time <= duration:
        raise ControlRefused("the duration is up to a week, and a checkpoint takes a part of it")
    _check(loop)
    began = trio.current_time()
    surveyor = Surveyor(checkpoint_time, began, duration)
    before = _compared(loop), list(loop.proxy.counters.hold_time.counts)
    with loop.surveyed_by(surveyor):
        while (elapsed := trio.current_time() - began) < duration:
            yield {"elapsed": elapsed}
            await trio.sleep(min(TICK, duration - elapsed))
            _check(loop)
    hold = loop.proxy.counters.hold_time
    counts = [now - then for now, then in zip(hold.counts, before[1], strict=True)]
    yield {"survey": surveyor.result(elapsed, _compared(loop) - before[0], Hold(hold.bounds, counts))}


def _check(loop: Loop) -> None:
    mode = loop.proxy.mode
    if mode != OBSERVE:
        raise ControlRefused(
            f"the mode is {mode}, and only in mode observe nothing is done about what diverges: "
            "`colo-compare set mode observe`"
        )


def _compared(loop: Loop) -> int:
    counters = loop.proxy.counters
    return counters.received[PRIMARY] - counters.released[NOT_COMPARED]
