"""`colo-compare events`: what has happened, and what happens, one line an event."""

import argparse
import json
from datetime import UTC, datetime
from typing import Any, Final

from colo_compare.commands.client import OK, add_json, add_socket, ask, follow

_REST: Final = ("number", "time", "event")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_socket(parser)
    add_json(parser, "print one JSON object a line")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with those that come")
    parser.add_argument(
        "-n", "--last", type=int, default=20, metavar="N", help="begin with the last N (default: 20)"
    )


def run(args: argparse.Namespace) -> int:
    """Print events; with --follow, until interrupted, or until the daemon ends."""
    params = {"last": args.last, "follow": args.follow}
    for event in follow(args, "events", params) if args.follow else ask(args, "events", params):
        print(json.dumps(event) if args.json else event_line(event), flush=args.follow)
    return OK


def event_line(event: dict[str, Any]) -> str:
    """Give one event as a line: local time, kind, and its fields."""
    fields = " ".join(f"{key}={_word(value)}" for key, value in event.items() if key not in _REST)
    if "time" not in event:
        return f"{event['event']} {fields}"
    moment = datetime.fromtimestamp(event["time"], UTC).astimezone()
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03} {event['event']:<19} {fields}"


def _word(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return json.dumps(text) if not text or any(c in text for c in ' "=\n') else text
