"""The commands. Everything heavy is imported by the command that needs it, so that --help comes at once."""

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from colo_compare.build import describe_build
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
UNREAD: Final = 141  # 128 + SIGPIPE

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
  141  nobody reads the output any more
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
        sys.stdout.flush()
    except ColoCompareError as error:
        if "--debug" in argv:
            traceback.print_exc()
        print(f"colo-compare: {error}", file=sys.stderr)
        return exit_code(error)
    except BrokenPipeError:
        # Whoever read our output has enough. Python would complain once more when it flushes it at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
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

    def fill_now(self) -> None:
        """Get the arguments."""
        if self.fill is not None:
            fill, self.fill = self.fill, None
            fill(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Fill, then parse."""
        self.fill_now()
        return super().parse_known_args(args, namespace)


# Name, summary, and the module that has the rest: add_arguments(parser), and run(args) for the exit code.
_COMMANDS: Final = (
    ("run", "run the proxy", "commands.run"),
    ("check", "validate a configuration and print what is in effect", "commands.check"),
    ("config", "write a configuration", "commands.config"),
    ("doctor", "look for what would keep a pair from working", "commands.doctor"),
    ("replay", "compare captures of what the two guests sent", "replay"),
    ("simulate", "run the whole system in virtual time, hunting for violations", "simulate"),
    ("demo", "show a failover between two servers in network namespaces", "demo"),
    ("status", "show the state of a running proxy", "commands.status"),
    ("top", "show a running proxy all the time", "commands.top"),
    ("events", "show the last events of a running proxy, and those that come", "commands.events"),
    ("explain", "explain a divergence: what differed, and why", "commands.explain"),
    ("capture", "write what passes on all three sides to a capture file", "commands.capture"),
    ("extcap", "be an interface of Wireshark's", "commands.extcap"),
    ("suitability", "tell whether a workload suits COLO", "commands.suitability"),
    ("promote", "move the service to the secondary", "commands.promote"),
    ("protect", "give the guest that runs alone a new secondary", "commands.protect"),
    ("checkpoint", "ask for a checkpoint now", "commands.checkpoint"),
    ("drain", "take nothing more from the client, and wait until nothing is held", "commands.drain"),
    ("set", "change a setting of a running proxy, or its mode", "commands.set"),
    ("completion", "print what a shell needs to complete this command", "commands.completion"),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="colo-compare",
        description="A COLO network proxy: lets out what a primary VM and its secondary both said.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"colo-compare {describe_build()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name, summary, module in _COMMANDS:
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("--debug", action="store_true", help="show a traceback with an error")
        command.fill = partial(_fill_from, module)
    return parser


def full_parser() -> argparse.ArgumentParser:
    """Give the parser with the arguments of every command, whose modules are imported for it."""
    parser = _parser()
    for command in _commands(parser):
        command.fill_now()
    return parser


def _commands(parser: argparse.ArgumentParser) -> list[_Parser]:
    choices = [action.choices for action in parser._actions if isinstance(action.choices, dict)]  # noqa: SLF001
    return [command for group in choices for command in group.values()]


def _fill_from(module: str, parser: argparse.ArgumentParser) -> None:
    command = importlib.import_module(f"colo_compare.{module}")
    command.add_arguments(parser)
    parser.set_defaults(run=command.run)
