"""`colo-compare completion SHELL`: what a shell needs to complete this command, made from its own parser."""

import argparse
from collections.abc import Iterator
from typing import Any, Final

import shtab

from colo_compare.commands.client import OK

_FILES: Final = (
    "FILE",
    "PATH",
    "CONFIG",
    "DIRECTORY",
)  # metavars that stand for something in the file system


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell")


def run(args: argparse.Namespace) -> int:
    """Print the completion."""
    from colo_compare.cli import full_parser

    print(completion(full_parser(), args.shell))
    return OK


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Give the script of one shell."""
    for action in _actions(parser):
        if action.metavar in _FILES or str(action.dest) in ("primary", "secondary"):
            vars(action)["complete"] = shtab.FILE  # where shtab looks for it
    return shtab.complete(parser, shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[Any]:
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to walk over a parser
        yield action
        if isinstance(action.choices, dict):
            for choice in action.choices.values():
                yield from _actions(choice)
