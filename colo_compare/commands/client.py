"""What the commands that talk to a running proxy share: where its socket is, and how it is asked."""

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from colo_compare import control
from colo_compare.config import ControlTable

OK: Final = 0
NEGATIVE: Final = 1


def add_socket(parser: argparse.ArgumentParser) -> None:
    """Add the option --socket."""
    parser.add_argument(
        "-s",
        "--socket",
        metavar="PATH",
        help="the daemon's control socket (default: $COLO_COMPARE_CONTROL__SOCKET, or the built-in one)",
    )


def add_json(parser: argparse.ArgumentParser, what: str = "print the answer as JSON") -> None:
    """Add the option --json."""
    parser.add_argument("--json", action="store_true", help=what)


def socket_path(args: argparse.Namespace) -> Path:
    """Give the path of the control socket."""
    return Path(args.socket or os.environ.get("COLO_COMPARE_CONTROL__SOCKET") or ControlTable().socket)


def ask(
    args: argparse.Namespace, method: str, params: Mapping[str, Any] | None = None, timeout: float = 10.0
) -> Any:
    """Ask the daemon. Raises ControlError, and ControlRefused when it says no."""
    return control.call(socket_path(args), method, params, timeout=timeout)


def follow(args: argparse.Namespace, method: str, params: Mapping[str, Any]) -> Iterator[Any]:
    """Ask the daemon for a method that gives many results. Raises as `ask` does."""
    return control.follow(socket_path(args), method, params)


def print_json(answer: object) -> None:
    """Print an answer for programs to read."""
    print(json.dumps(answer, indent=2))
