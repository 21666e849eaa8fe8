"""`colo-compare status`: the state of a running proxy, the verdict first."""

import argparse

from colo_compare.commands.client import NEGATIVE, OK, add_json, add_socket, ask, print_json
from colo_compare.status_text import render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_socket(parser)
    add_json(parser, "print everything as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the state; OK if the pair is protected."""
    status = ask(args, "status")
    if args.json:
        print_json(status)
    else:
        print(render(status))
    return OK if status["protected"] else NEGATIVE
