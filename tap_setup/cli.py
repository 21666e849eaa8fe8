"""The command colo-tap-setup."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from colo_compare import __version__
from colo_compare.errors import ConfigError, SetupError
from tap_setup.check import check
from tap_setup.config import load_config
from tap_setup.create import create
from tap_setup.desired import Desired, desire
from tap_setup.destroy import destroy
from tap_setup.refusal import PrivilegeMissing
from tap_setup.report import Report, as_json, as_script, as_text

OK: Final = 0
DEVIATIONS: Final = 1
USAGE: Final = 2
NO_PRIVILEGE: Final = 3
REFUSED: Final = 4
INTERRUPTED: Final = 130

_EPILOG: Final = """\
exit codes:
  0  everything is as configured; with destroy: nothing of ours is left
  1  deviations remain; with destroy: a namespace was kept because it holds other links
  2  usage or configuration error
  3  no permission: run as root, or with CAP_NET_ADMIN (and CAP_SYS_ADMIN for namespaces)
  4  the kernel refused; what was done before is shown, and stays
  130  interrupted
"""
_STAYS: Final = "what is listed above was done, and stays; `colo-tap-setup destroy` takes it back"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Gives the exit code."""
    options = _parser().parse_args(arguments)
    report = Report()
    try:
        _run(options, desire(load_config(options.config)), report)
    except ConfigError as error:
        report.error = f"{options.config}: {error}" if error.path.startswith("$") else str(error)
        code = USAGE
    except PrivilegeMissing as error:
        report.error, code = str(error), NO_PRIVILEGE
    except SetupError as error:
        report.error, code = str(error), REFUSED
    except KeyboardInterrupt:
        report.error, code = "interrupted", INTERRUPTED  # between two namespaces: each is finished first
    else:
        code = DEVIATIONS if report.kept or (report.deviations and not options.dry_run) else OK
    _print(options, report)
    return code


def _run(options: argparse.Namespace, desired: Desired, report: Report) -> None:
    if options.command == "create" and not options.dry_run:
        create(desired, str(options.config), report)
    elif options.command == "destroy":
        destroy(desired, report)
    else:
        check(desired, str(options.config), report)


def _print(options: argparse.Namespace, report: Report) -> None:
    if options.json:
        print(as_json(report))
    elif options.dry_run:
        print(as_script(report))
    elif text := as_text(report):
        print(text)
    if report.error is not None:
        print(f"colo-tap-setup: {report.error}", file=sys.stderr)
        if report.changes:
            print(f"colo-tap-setup: {_STAYS}", file=sys.stderr)
    elif not options.json and not options.dry_run:
        print(_verdict(options.command, report))


def _verdict(command: str, report: Report) -> str:
    links = _count(report.links, "link")
    changes = _count(len(report.changes), "change") if report.changes else "no changes"
    deviations = _count(len(report.deviations), "deviation") if report.deviations else "all as configured"
    if command == "destroy":
        return f"{links}: {changes}"
    return f"{links}: {deviations}" if command == "check" else f"{links}: {changes}, {deviations}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="colo-tap-setup",
        description="Prepares taps, bridges and interfaces for a proxy that runs without privileges.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help_text in (
        ("create", "make what is missing and repair what deviates"),
        ("check", "report what deviates, and the fix of each; change nothing"),
        ("destroy", "remove what was made, put back what was prepared"),
    ):
        command = commands.add_parser(name, help=help_text, description=f"{help_text.capitalize()}.")
        command.add_argument("-c", "--config", type=Path, required=True, metavar="FILE", help="TOML file")
        command.add_argument("--json", action="store_true", help="report as JSON on standard output")
        command.set_defaults(dry_run=False)
        if name == "create":
            command.add_argument(
                "--dry-run", action="store_true", help="print shell commands that do the same, do nothing"
            )
    return parser
