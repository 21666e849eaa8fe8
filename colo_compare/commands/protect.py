"""`colo-compare protect`: give the guest that runs alone a new secondary."""

import argparse
from typing import Final

from colo_compare.commands.client import OK, add_json, add_socket, ask, print_json
from colo_compare.errors import ConfigError

LIMIT: Final = 600.0  # seconds, unless another time is given: a whole guest is copied
_ANSWER: Final = 10.0  # seconds beyond it, for the daemon's own words


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_socket(parser)
    add_json(parser)
    parser.add_argument(
        "--port", metavar="URL", default="", help="the new secondary's port (default: that of the lost guest)"
    )
    parser.add_argument(
        "--client",
        metavar="URL",
        default="",
        help="the client's port from now on, where it went with the old primary (default: the same URL)",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        dest="changes",
        action="append",
        default=[],
        help="another value for a key of [checkpointer], written as in the environment; may be repeated",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=LIMIT,
        help="until the pair is protected (default: %(default)g); then the guest runs alone as before",
    )


def run(args: argparse.Namespace) -> int:
    """Protect, and say with what."""
    changes = {}
    for change in args.changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise ConfigError("--set", f'"{change}" sets nothing: write KEY=VALUE')
        changes[key] = value
    params = {"port": args.port, "client": args.client, "set": changes, "timeout": args.timeout}
    answer = ask(args, "protect", params, timeout=args.timeout + _ANSWER)
    if args.json:
        print_json(answer)
    else:
        print(
            f"protected: the guest on port {answer['primary']} has the one on port {answer['secondary']} "
            f"as its secondary, epoch {answer['epoch']}"
        )
    return OK
