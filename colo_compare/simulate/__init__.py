"""`colo-compare simulate`: the whole system in virtual time, one seed one run, hunting for violations.

See docs/simulator.md.
"""

import argparse
import os

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--seeds", type=_count, default=1000, metavar="N", help="how many runs (default: 1000)"
    )
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the first seed (default: 0)")
    parser.add_argument("--seed", type=int, metavar="S", help="run this one alone, and tell all about it")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all that happens")
    parser.add_argument(
        "--only", type=_indices, metavar="I,J", help="with --seed: only these of its events, from 0"
    )
    parser.add_argument("--calm", action="store_true", help="with --seed: a network without faults")
    parser.add_argument(
        "--jobs",
        type=_count,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="processes (default: one for each processor)",
    )
    parser.add_argument(
        "--probe",
        type=int,
        metavar="N",
        help="in every N-th run let the primary die at many moments, in copies of the world "
        "(default: 50; 0: in none; with --seed: 0)",
    )
    parser.add_argument(
        "--stop-after", type=_count, default=20, metavar="N", help="stop after N violations (default: 20)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run seeds; 0 if the rules held in all of them, 1 if not."""
    from colo_compare.simulate.command import simulate_many, simulate_seed

    if args.seed is not None:
        return simulate_seed(args.seed, args.only, calm=args.calm, trace=args.trace, probed=bool(args.probe))
    return simulate_many(
        args.first,
        args.seeds,
        jobs=args.jobs,
        probe=50 if args.probe is None else args.probe,
        most=args.stop_after,
        as_json=args.json,
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _indices(text: str) -> tuple[int, ...]:
    return () if text == "none" else tuple([int(part) for part in text.split(",")])
