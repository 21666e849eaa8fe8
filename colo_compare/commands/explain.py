"""`colo-compare explain [ID]`: what a divergence was about."""

import argparse
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from colo_compare.commands import dissect
from colo_compare.commands.client import OK, add_json, add_socket, ask, print_json
from colo_compare.commands.hexdiff import hex_diff

_ALL: Final = 256
_NEAR: Final = 3  # lines of bytes before and after one that differs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_socket(parser)
    add_json(parser)
    parser.add_argument("id", nargs="?", type=int, default=0, help="which divergence (default: the last one)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="list the last divergences instead")
    what.add_argument("--patterns", action="store_true", help="list what they have in common instead")
    parser.add_argument(
        "--all-bytes", action="store_true", help="show all that is kept, not what is near alone"
    )
    parser.add_argument("--no-bytes", action="store_true", help="show nothing of what the guests said")


def run(args: argparse.Namespace) -> int:
    """Explain one divergence, or list them."""
    if args.list or args.patterns:
        answer = ask(args, "divergences", {"last": _ALL})
        if args.json:
            print_json(answer["patterns" if args.patterns else "divergences"])
        else:
            print("\n".join(_patterns(answer["patterns"]) if args.patterns else _list(answer["divergences"])))
        return OK
    record = ask(args, "explain", {"id": args.id})
    if args.no_bytes:
        for side in ("primary", "secondary"):
            for name in ("frame", "context"):
                record[side][name] = ""
    if args.json:
        print_json(record)
    else:
        print("\n".join(explanation(record, None if args.all_bytes else _NEAR)))
    return OK


def explanation(record: dict[str, Any], near: int | None) -> Iterator[str]:
    """Give one divergence in words, as lines. `near`: lines of bytes round a difference, None for all."""
    cause = record["cause"]
    yield f"divergence {record['id']}: {_name(cause['kind'], cause['field'])}"
    yield f"when        {_moment(record['time'])}, in epoch {record['epoch']}"
    yield f"flow        {record['flow']}"
    yield f"where       {record['reason']}, {record['offset']} bytes from the start of what the guest said"
    yield f"cause       {cause['text']}"
    yield f"timing      {_timing(record)}"
    yield f"checkpoint  {_checkpoint(record['checkpoint'])}"
    yield f"pattern     {_pattern(record['pattern'])}"
    ours, theirs = record["primary"], record["secondary"]
    if ours["context"] or theirs["context"]:
        yield ""
        yield from hex_diff(
            b64decode(ours["context"]), ours["before"], b64decode(theirs["context"]), theirs["before"],
            record["offset"], near,
        )  # fmt: skip
    if ours["frame"] and theirs["frame"]:
        yield ""
        yield from _fields(b64decode(ours["frame"]), b64decode(theirs["frame"]))


def _name(kind: str, field: str) -> str:
    words = kind.replace("_", " ")
    return f"{words} in {field}" if field else words


def _moment(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def _timing(record: dict[str, Any]) -> str:
    ours, theirs = record["primary"]["time"], record["secondary"]["time"]
    if ours is None and theirs is None:
        return "not known"
    if theirs is None or ours is None:
        side, only = ("primary", ours) if theirs is None else ("secondary", theirs)
        return f"the {side}'s frame had come {_span(record['time'] - only)} before; the other side's had not"
    first, second = ("primary", "secondary") if ours <= theirs else ("secondary", "primary")
    late = record["time"] - max(ours, theirs)
    text = f"the {first}'s frame came {_span(abs(ours - theirs))} before the {second}'s"
    return text + (f", and it was called a divergence {_span(late)} later" if late >= 0.0005 else "")


def _span(seconds: float) -> str:
    return f"{seconds * 1000:.3f} ms" if seconds < 1 else f"{seconds:.3f} s"


def _checkpoint(checkpoint: dict[str, Any] | None) -> str:
    if checkpoint is None:
        return "none has followed"
    if checkpoint["outcome"] == "aborted":
        return f"the one for epoch {checkpoint['epoch']} was aborted: {checkpoint['detail']}"
    return f"epoch {checkpoint['epoch']} was committed {_span(checkpoint['after'])} later"


def _pattern(pattern: dict[str, Any]) -> str:
    times = "the only one like this" if pattern["count"] == 1 else f"{pattern['count']} like this"
    ids = f", the last ones: {', '.join(map(str, pattern['ids']))}" if pattern["count"] > 1 else ""
    return f"{times} from {pattern['service']} since {_moment(pattern['first'])}{ids}"


def _fields(ours: bytes, theirs: bytes) -> Iterator[str]:
    if not dissect.available():
        yield "fields      not named: pip install 'colo-compare[explain]' brings scapy, which knows them"
        return
    differences = dissect.differing_fields(ours, theirs)
    if not differences:
        yield "fields      no header field differs"
        return
    yield "fields that differ"
    for difference in differences:
        note = f"  ({difference.note})" if difference.note else ""
        yield f"  {difference.field:<22} {difference.primary or '-'} | {difference.secondary or '-'}{note}"


def _list(divergences: list[dict[str, Any]]) -> Iterator[str]:
    if not divergences:
        yield "nothing has diverged since the start"
        return
    yield f"{'id':>6}  {'when':<19}  {'reason':<12} {'cause':<24} flow"
    for one in divergences:
        name = _name(one["cause"], one["field"])
        yield f"{one['id']:>6}  {_moment(one['time'])}  {one['reason']:<12} {name:<24} {one['flow']}"


def _patterns(patterns: list[dict[str, Any]]) -> Iterator[str]:
    if not patterns:
        yield "nothing has diverged since the start"
        return
    yield f"{'count':>6}  {'last':<19}  {'reason':<12} {'cause':<24} service"
    for one in patterns:
        name = _name(one["cause"], one["field"])
        yield f"{one['count']:>6}  {_moment(one['last'])}  {one['reason']:<12} {name:<24} {one['service']}"
