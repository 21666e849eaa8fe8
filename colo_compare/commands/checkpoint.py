"""`colo-compare checkpoint`: make the two guests equal now."""

import argparse

from colo_compare.commands.client import OK, add_json, add_socket, ask, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_socket(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Ask for a checkpoint."""
    answer = ask(args, "checkpoint")
    if args.json:
        print_json(answer)
    else:
        print(f"asked for the checkpoint that begins epoch {answer['epoch']}")
    return OK
