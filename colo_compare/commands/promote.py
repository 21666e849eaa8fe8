"""`colo-compare promote`: move the service to the secondary."""

import argparse
from typing import Final

from colo_compare.commands.client import OK, add_json, add_socket, ask, print_json

LIMIT: Final = 180.0  # seconds: a guest may have to be fenced by its power switch first


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_socket(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Promote, and say which port serves now."""
    answer = ask(args, "promote", timeout=LIMIT)
    if args.json:
        print_json(answer)
    else:
        print(f"promoted: the guest on port {answer['primary']} is the primary now")
    return OK
