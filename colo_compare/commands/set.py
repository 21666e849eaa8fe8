"""`colo-compare set KEY VALUE`: change a setting of a running proxy."""

import argparse
from typing import Any

from colo_compare.commands.client import OK, add_json, add_socket, ask, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_socket(parser)
    add_json(parser)
    parser.add_argument(
        "key", nargs="?", help="mode, log.level, or a key of [proxy]; without one all are shown"
    )
    parser.add_argument(
        "value", nargs="?", help="as in the configuration, without quotes: 500ms, 64MiB, observe"
    )


def run(args: argparse.Namespace) -> int:
    """Set one, show one, or show all."""
    if args.key is None or args.value is None:
        settings = ask(args, "set")["settings"]
        if args.key is not None:
            # An unknown one is the daemon's to refuse, in its own words.
            settings = {args.key: settings[args.key]} if args.key in settings else _set(args)
        if args.json:
            print_json(settings)
        else:
            width = max(map(len, settings))
            print("\n".join(f"{key:<{width}}  {_text(value)}" for key, value in settings.items()))
        return OK
    answer = _set(args)
    if args.json:
        print_json(answer)
    else:
        print(f"{answer['key']}: {_text(answer['before'])} -> {_text(answer['now'])}")
    return OK


def _set(args: argparse.Namespace) -> dict[str, Any]:
    # A change of mode waits for the checkpoint under way.
    answer: dict[str, Any] = ask(args, "set", {"key": args.key, "value": args.value or ""}, timeout=60.0)
    return answer


def _text(value: object) -> str:
    """Give a value as the command takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
