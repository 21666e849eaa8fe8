"""What the core costs for each released frame, by its steps and without any I/O: the program to profile.

    python -m tests.bench.core_cost --flows 1000 --payload 64

Both guests say the same; their frames come in batches as large as one read of a stream port gives them.
"""

import argparse
import gc
import time
from collections.abc import Iterator

import numpy as np

from colo_compare.build import describe_build
from colo_compare.core.proxy import Proxy
from colo_compare.core.settings import Settings
from colo_compare.core.sides import CLIENT, PRIMARY, SECONDARY
from colo_compare.wire.frame import parse_frames
from colo_compare.wire.stream_framing import StreamDecoder
from tests.bench import frames

READ = 64 << 10  # bytes
CHUNK = 100_000  # frames made at a time


def batches(count: int, flows: int, payload: int) -> Iterator[bytes]:
    """Give the stream of `count` frames, read by read."""
    for first in range(0, count, CHUNK):
        numbers = np.arange(first, min(first + CHUNK, count))
        stream = frames.data(numbers, flows, payload).tobytes()
        for at in range(0, len(stream), READ):
            yield stream[at : at + READ]


def protected(flows: int) -> Proxy:
    """Give a proxy that protects so many connections."""
    proxy = Proxy(Settings(max_half_open=flows + 1), 0.0)
    proxy.start(0.0)
    proxy.paused(1, 0.0)
    proxy.committed(1, 0.0)
    syns, answers, acks = frames.handshakes(flows)
    for side, batch in ((CLIENT, syns), (PRIMARY, answers), (SECONDARY, answers), (CLIENT, acks)):
        proxy.receive(side, parse_frames(batch, 0, side == CLIENT), 0.0)
        proxy.take_actions()
    return proxy


def measure(flows: int, payload: int, count: int, secondary_first: bool) -> dict[str, float]:
    """Give nanoseconds of processor time for each released frame, by step."""
    proxy = protected(flows)
    gc.collect()
    gc.freeze()
    sides = (SECONDARY, PRIMARY) if secondary_first else (PRIMARY, SECONDARY)
    decoders = {side: StreamDecoder(vnet=False) for side in sides}
    spent = dict.fromkeys(("decode", "parse", "primary", "secondary"), 0)
    released = 0
    now = 0.0
    clock = time.process_time_ns
    for data in batches(count, flows, payload):
        now += 0.0001
        for side in sides:
            t0 = clock()
            raw = decoders[side].feed(data)
            t1 = clock()
            parsed = parse_frames(raw, 0, False)
            t2 = clock()
            proxy.receive(side, parsed, now)
            actions = proxy.take_actions()
            del raw, parsed
            t3 = clock()
            released += len(actions.to_client)
            spent["decode"] += t1 - t0
            spent["parse"] += t2 - t1
            spent["primary" if side == PRIMARY else "secondary"] += t3 - t2
    if released != count:
        raise RuntimeError(f"{released} of {count} frames were released")
    return {step: total / count for step, total in spent.items()}


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flows", type=int, default=1000)
    parser.add_argument("--payload", type=int, default=64, help="bytes of each frame")
    parser.add_argument("--frames", type=int, default=300_000)
    parser.add_argument("--secondary-first", action="store_true")
    args = parser.parse_args()
    steps = measure(args.flows, args.payload, args.frames, args.secondary_first)
    words = ", ".join(f"{step} {cost:.0f}" for step, cost in steps.items())
    print(f"{describe_build()}: {sum(steps.values()):.0f} ns for each released frame: {words}")


if __name__ == "__main__":
    main()
