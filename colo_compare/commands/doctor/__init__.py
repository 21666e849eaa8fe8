"""`colo-compare doctor`: what would keep a pair from working, and how to put it right."""

import argparse
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from colo_compare import control
from colo_compare.commands.client import NEGATIVE, OK, add_json, print_json
from colo_compare.commands.doctor.account import Account, named_account, this_account
from colo_compare.commands.doctor.backend import look_at_backend
from colo_compare.commands.doctor.finding import BAD, DOUBTFUL, GOOD, Finding, bad, good
from colo_compare.commands.doctor.machine import look_at_machine, look_at_places
from colo_compare.commands.doctor.ports import look_at_ports
from colo_compare.config import Config, load_config
from colo_compare.errors import ConfigError, ControlError

_WIDTH: Final = 16  # of the second column


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        help="the configuration; without it: the machine alone",
    )
    parser.add_argument("--user", metavar="NAME", help="the user that runs the proxy (default: this one)")
    add_json(parser, "print a list of findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Look at everything; OK if nothing is bad."""
    account = this_account() if args.user is None else named_account(args.user)
    findings = []
    for finding in look(args.config, account):
        findings.append(finding)
        if not args.json:
            print(f"{finding.state:<5} {finding.about:<{_WIDTH}} {finding.text}", flush=True)
            if finding.fix:
                print(f"      {'':<{_WIDTH}} fix: {finding.fix}")
    if args.json:
        print_json([asdict(finding) for finding in findings])
    else:
        count = {state: sum(each.state == state for each in findings) for state in (GOOD, DOUBTFUL, BAD)}
        print(f"{len(findings)} looked at: {count[BAD]} bad, {count[DOUBTFUL]} doubtful, {count[GOOD]} good")
    return NEGATIVE if any(finding.state == BAD for finding in findings) else OK


def look(path: Path | None, account: Account) -> Iterator[Finding]:
    """Give the findings one by one: a monitor that does not answer takes its time."""
    if path is None:
        yield from look_at_machine(account, has_packet_ports=True)
        return
    try:
        config = load_config(path, os.environ)
    except ConfigError as error:
        yield bad("configuration", str(error), f"correct {path}, then: colo-compare check -c {path}")
        yield from look_at_machine(account, has_packet_ports=True)
        return
    proxy, backend = config.proxy, config.checkpointer.backend
    yield good("configuration", f"{path}: mode {proxy.mode}, checkpointer {backend}")
    running = _is_running(config)
    yield from look_at_machine(account, has_packet_ports="packet:" in str(config.ports))
    yield from look_at_ports(config.ports, account, running=running)
    yield from look_at_places(config, account, running=running)
    yield from look_at_backend(config.checkpointer, proxy.mode, running=running)


def _is_running(config: Config) -> bool:
    """Whether a proxy with this configuration answers."""
    if config.control.socket == "off":
        return False
    try:
        control.call(Path(config.control.socket), "version", timeout=2.0)
    except ControlError:
        return False
    return True
