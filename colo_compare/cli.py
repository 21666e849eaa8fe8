"""The commands. Everything heavy is imported by the command that needs it, so that --help comes at once."""

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from colo_compare import __version__
from colo_compare.errors import (
    CaptureError,
    CheckpointerError,
    ColoCompareError,
    ConfigError,
    ControlError,
    ControlRefused,
    PortError,
    SetupError,
)

OK: Final = 0
NEGATIVE: Final = 1
USAGE: Final = 2
NO_PORT: Final = 3
NO_CHECKPOINTER: Final = 4
NO_DAEMON: Final = 5
INTERNAL: Final = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell says it

PROMOTION_LIMIT: Final = 180.0  # seconds: a guest may have to be fenced by its power switch first

EXIT_CODES: Final = """\
exit codes:
  0    done; for `status`: protected; for `replay`: nothing diverged
  1    a negative answer: refused, not protected, or a divergence was found
  2    wrong usage or configuration, or a capture file that cannot be read
  3    a port (no such interface, no permission, gone while running), or the machine's set-up
  4    the checkpointer
  5    no daemon answers on the control socket, or that socket cannot be made
  70   an internal error: please report it with the traceback
  130  interrupted
"""
_CODES: Final[tuple[tuple[type[ColoCompareError], int], ...]] = (
    (ConfigError, USAGE),
    (CaptureError, USAGE),
    (PortError, NO_PORT),
    (SetupError, NO_PORT),
    (CheckpointerError, NO_CHECKPOINTER),
    (ControlRefused, NEGATIVE),
    (ControlError, NO_DAEMON),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    if argv is None:
        argv = sys.argv[1:]
    try:
        args = _parser().parse_args(argv)
        code: int = args.run(args)
    except ColoCompareError as error:
        if "--debug" in argv:
            traceback.print_exc()
        print(f"colo-compare: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        print("colo-compare: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # the last line of defence: a bug is reported whole, and has an exit code
        traceback.print_exc()
        print(f"colo-compare: internal error: {type(error).__name__}: {error}", file=sys.stderr)
        return INTERNAL
    return code


def exit_code(error: ColoCompareError) -> int:
    """Give the exit code that an error ends its command with."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), NEGATIVE)


class _Parser(argparse.ArgumentParser):
    """A parser that gets its arguments when it is first used, as they may come from a heavy module."""

    fill: Callable[["_Parser"], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Fill, then parse."""
        if self.fill is not None:
            fill, self.fill = self.fill, None
            fill(self)
        return super().parse_known_args(args, namespace)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="colo-compare",
        description="A COLO network proxy: lets out what a primary VM and its secondary both said.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"colo-compare {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name, summary, fill in (
        ("run", "run the proxy", _fill_run),
        ("check", "validate a configuration and print what is in effect", _fill_check),
        ("replay", "compare captures of what the two guests sent", _fill_replay),
        ("demo", "show a failover between two servers in network namespaces", _fill_demo),
        ("status", "show the state of a running proxy", _fill_status),
        ("promote", "move the service to the secondary", _fill_promote),
        ("checkpoint", "ask for a checkpoint now", _fill_checkpoint),
    ):
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("--debug", action="store_true", help="show a traceback with an error")
        command.fill = fill
    return parser


# One function for each command: its arguments, and what runs it


def _add_config(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "-c", "--config", metavar="FILE", type=Path, required=required, help="the configuration (TOML)"
    )


def _fill_run(parser: argparse.ArgumentParser) -> None:
    _add_config(parser, required=True)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from colo_compare import daemon

    daemon.run(args.config, os.environ)
    return OK


def _fill_check(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    _add_config(what, required=False)  # type: ignore[arg-type]  # a group takes arguments as a parser does
    what.add_argument(
        "--schema", action="store_true", help="print the JSON schema of the configuration instead"
    )
    parser.set_defaults(run=_check)


def _check(args: argparse.Namespace) -> int:
    import json

    from colo_compare.config import effective_toml, json_schema, load_config

    if args.schema:
        print(json.dumps(json_schema(), indent=2))
    else:
        print(effective_toml(load_config(args.config, os.environ)), end="")
    return OK


def _fill_replay(parser: argparse.ArgumentParser) -> None:
    _fill_from("colo_compare.replay", parser)


def _fill_demo(parser: argparse.ArgumentParser) -> None:
    _fill_from("colo_compare.demo", parser)


def _fill_from(module: str, parser: argparse.ArgumentParser) -> None:
    command = importlib.import_module(module)
    command.add_arguments(parser)
    parser.set_defaults(run=command.run)


def _add_socket(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-s",
        "--socket",
        metavar="PATH",
        help="the daemon's control socket (default: $COLO_COMPARE_CONTROL__SOCKET, or the built-in one)",
    )


def _fill_status(parser: argparse.ArgumentParser) -> None:
    _add_socket(parser)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=_status)


def _fill_promote(parser: argparse.ArgumentParser) -> None:
    _add_socket(parser)
    parser.set_defaults(run=_promote)


def _fill_checkpoint(parser: argparse.ArgumentParser) -> None:
    _add_socket(parser)
    parser.set_defaults(run=_checkpoint)


def _status(args: argparse.Namespace) -> int:
    import json

    from colo_compare.status_text import render

    status = _call(args, "status")
    print(json.dumps(status, indent=2) if args.json else render(status))
    return OK if status["protected"] else NEGATIVE


def _promote(args: argparse.Namespace) -> int:
    answer = _call(args, "promote", timeout=PROMOTION_LIMIT)
    print(f"promoted: the guest on port {answer['primary']} is the primary now")
    return OK


def _checkpoint(args: argparse.Namespace) -> int:
    answer = _call(args, "checkpoint")
    print(f"asked for the checkpoint that begins epoch {answer['epoch']}")
    return OK


def _call(args: argparse.Namespace, method: str, timeout: float = 10.0) -> dict[str, Any]:
    from colo_compare.config import ControlTable
    from colo_compare.control import call

    path = args.socket or os.environ.get("COLO_COMPARE_CONTROL__SOCKET") or ControlTable().socket
    answer: dict[str, Any] = call(Path(path), method, timeout=timeout)
    return answer
