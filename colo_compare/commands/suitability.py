"""`colo-compare suitability`: does this workload suit COLO?"""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from colo_compare import __version__
from colo_compare.commands.client import NEGATIVE, OK, add_json, add_socket, follow
from colo_compare.errors import ConfigError, ControlError
from colo_compare.quantities import Duration
from colo_compare.suitability.page import as_html
from colo_compare.suitability.survey import Survey
from colo_compare.suitability.verdict import SUITS, judge
from colo_compare.suitability.words import as_text, span

_FORMAT = 1  # of the JSON form: grows when a field changes its meaning or goes away


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_socket(parser)
    add_json(parser, "print JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots, too")
    parser.add_argument(
        "--duration", type=_duration, default=Duration(600), metavar="SPAN", help="how long (default: 10m)"
    )
    parser.add_argument(
        "--checkpoint-time",
        type=_duration,
        default=Duration(0.05),
        metavar="SPAN",
        help="how long a checkpoint is taken to last: from the request to the commit (default: 50ms)",
    )
    offline = parser.add_argument_group("offline, in place of a running proxy (see `replay`)")
    offline.add_argument("--primary", type=Path, metavar="PCAP", help="capture at the primary's interface")
    offline.add_argument("--secondary", type=Path, metavar="PCAP", help="capture at the secondary's")
    offline.add_argument("--client", type=Path, metavar="PCAP", help="capture of the client's frames")


def run(args: argparse.Namespace) -> int:
    """Print the verdict; 0 if the workload suits COLO. Raises CaptureError, ControlError, ControlRefused."""
    if (args.primary is None) != (args.secondary is None):
        raise ConfigError("--primary, --secondary", "both captures are needed, or none for a running proxy")
    survey = _from_daemon(args) if args.primary is None else _from_captures(args)
    verdict = judge(survey)
    if args.html is not None:
        made = f"{datetime.now(UTC).astimezone():%Y-%m-%d %H:%M}, colo-compare {__version__} suitability"
        try:
            args.html.write_text(as_html(verdict, made), encoding="utf-8")
        except OSError as error:
            raise ConfigError("--html", f"{args.html} cannot be written: {error.strerror}") from None
    if args.json:
        told = {"version": _FORMAT, **msgspec.to_builtins(verdict)}
        print(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
    else:
        print("\n".join(as_text(verdict)))
    return OK if verdict.grade == SUITS else NEGATIVE


def _from_daemon(args: argparse.Namespace) -> Survey:
    progress = _progress(args.duration)
    params = {"duration": float(args.duration), "checkpoint_time": float(args.checkpoint_time)}
    for answer in follow(args, "suitability", params):
        if "survey" in answer:
            return msgspec.convert(answer["survey"], Survey)
        progress(answer)
    raise ControlError("the daemon ended before the time was over")


def _progress(duration: float) -> Callable[[dict[str, Any]], None]:
    """Give what shows on a terminal how long it still takes."""

    def show(answer: dict[str, Any]) -> None:
        if sys.stderr.isatty():
            left = span(max(duration - answer["elapsed"], 0.0))
            print(f"\robserving, {left} left\x1b[K\r", end="", file=sys.stderr, flush=True)

    return show


def _from_captures(args: argparse.Namespace) -> Survey:
    from colo_compare.replay.recording import Recording
    from colo_compare.replay.timeline import START, lay_out
    from colo_compare.suitability.captures import survey_captures

    client = None if args.client is None else Recording(args.client)
    timeline = lay_out(Recording(args.primary), Recording(args.secondary), client, None, START)
    return survey_captures(timeline, 3.0, float(args.checkpoint_time))


def _duration(text: str) -> Duration:
    try:
        found = Duration.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not found > 0:
        raise argparse.ArgumentTypeError(f"{text} is no time at all")
    return found
