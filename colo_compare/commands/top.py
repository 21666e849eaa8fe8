"""`colo-compare top`: a running proxy, looked at all the time."""

import argparse
import itertools
import json
import sys
import time
from typing import Any, Final

from colo_compare.commands.client import OK, add_json, add_socket, ask, socket_path
from colo_compare.commands.terminal import Terminal, Terminated, taken_over
from colo_compare.commands.top_view import View
from colo_compare.errors import ControlError

SIGNALLED: Final = 128  # plus the signal's number, as a shell says it
_PLAIN_SIZE: Final = (80, 24)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_socket(parser)
    add_json(parser, "print one JSON object a line for each look")
    parser.add_argument(
        "-d", "--delay", type=float, default=1.0, metavar="SECONDS", help="between two looks (default: 1)"
    )
    parser.add_argument("-n", "--count", type=int, metavar="N", help="look N times, then end")


def run(args: argparse.Namespace) -> int:
    """Show it until q, Ctrl-C or N looks. Without a terminal, print it look by look."""
    args.delay = max(args.delay, 0.1)
    first = ask(args, "activity")  # where no daemon answers, the terminal stays as it is
    try:
        if args.json or not sys.stdout.isatty():
            _print(args, first)
        else:
            with taken_over() as terminal:
                _show(args, first, terminal)
    except KeyboardInterrupt:  # the way to end it
        return OK
    except Terminated as end:
        return SIGNALLED + end.number
    return OK


def _looks(args: argparse.Namespace) -> Any:
    return itertools.count(1) if args.count is None else range(1, args.count + 1)


def _print(args: argparse.Namespace, activity: dict[str, Any]) -> None:
    view = View(colours=False, blocks=_can_show_blocks())
    for number in _looks(args):
        if number > 1:
            time.sleep(args.delay)
            activity = ask(args, "activity")
        view.update(activity)
        if args.json:
            print(json.dumps(activity), flush=True)
        else:
            print("\n".join(view.lines(*_PLAIN_SIZE)), end="\n\n", flush=True)


def _show(args: argparse.Namespace, activity: dict[str, Any], terminal: Terminal) -> None:
    view = View(colours=True, blocks=_can_show_blocks())
    view.update(activity)
    trouble = ""
    for _ in _looks(args):
        footer = trouble or f"q quits    every {args.delay:g} s    {socket_path(args)}"
        terminal.show(view.lines(*terminal.size, footer))
        if terminal.wait(args.delay) in ("q", "Q", "\x1b"):
            return
        try:
            view.update(ask(args, "activity", timeout=max(args.delay, 2.0)))
            trouble = ""
        except ControlError as error:  # it may be restarted: what was seen last stays, and says so
            trouble = str(error)


def _can_show_blocks() -> bool:
    return (sys.stdout.encoding or "").lower().startswith("utf")
