"""`colo-compare config init`: write a configuration with comments, by asking, or without a question."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from colo_compare.commands.client import OK
from colo_compare.config import load_config
from colo_compare.config.text import toml_value
from colo_compare.errors import ConfigError, SetupError
from colo_compare.ports.tap import DEVICE
from tap_setup import desired
from tap_setup.host import Host, LinkState

BACKENDS: Final = ("null", "command", "qemu")
MODES: Final = ("observe", "protect")
_MONITORS: Final = {"primary": "unix:/run/qemu/primary.qmp", "secondary": "unix:/run/qemu/secondary.qmp"}
_PROGRAMS: Final = "/usr/local/lib/colo-compare"

Ask = Callable[[str, str], str]  # question, suggestion -> answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments: those of its only part."""
    parts = parser.add_subparsers(metavar="WHAT", required=True)
    init = parts.add_parser(
        "init",
        help="write a new configuration",
        description="Writes a configuration with comments. What is not given is asked for, with what is "
        "found here as the suggestion; with --yes, or without a terminal, the suggestions are taken.",
    )
    init.add_argument("file", nargs="?", type=Path, metavar="FILE", help="where to (default: stdout)")
    for side in ("client", "primary", "secondary"):
        init.add_argument(f"--{side}", metavar="URL", help=f"the {side}'s port, like packet:eth1 or tap:tap0")
    init.add_argument("--mode", choices=MODES, help="observe first: it only counts what would diverge")
    init.add_argument("--backend", choices=BACKENDS, help="the checkpointer")
    for side in ("primary", "secondary"):
        init.add_argument(f"--{side}-monitor", metavar="ADDRESS", help=f"qemu: of the {side}")
    init.add_argument("-y", "--yes", action="store_true", help="ask nothing")
    init.add_argument("--force", action="store_true", help="replace the file if it is there")
    init.add_argument("--debug", action="store_true", help="show a traceback with an error")
    init.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the configuration. Raises ConfigError for what cannot be one."""
    if args.file is not None and args.file.exists() and not args.force:
        raise ConfigError(str(args.file), "is there already: take another name, or --force")
    quiet = args.yes or not sys.stdin.isatty()
    text = compose(args, links_here(), _take_suggestion if quiet else _ask)
    _check(text)
    if args.file is None:
        print(text, end="")
        return OK
    try:
        args.file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(args.file), f"cannot be written: {error.strerror}") from None
    print(f"wrote {args.file}; next: colo-compare doctor -c {args.file}", file=sys.stderr)
    return OK


def links_here() -> list[LinkState]:
    """Give the interfaces of this network namespace, those that could be a port."""
    try:
        with Host(Path(DEVICE)) as host:
            states = [host.read(name) for name in host.names()]
    except SetupError:
        return []
    return [state for state in states if state is not None and state.name != "lo"]


@dataclass(frozen=True)
class _Suggestions:
    """The ports that the interfaces of a machine suggest, "" for none."""

    client: str
    primary: str
    secondary: str


def suggest(links: list[LinkState]) -> _Suggestions:
    """Suggest ports: two taps for the guests, and for the client an interface that nothing else uses."""
    taps = [link.name for link in links if link.kind == desired.TAP]
    free = [
        link.name
        for link in links
        if link.kind not in (desired.TAP, desired.BRIDGE)
        and link.values[desired.ADDRESS] == desired.NONE
        and link.values[desired.MASTER] == desired.NONE
    ]
    primary = _named(taps, "pri")
    secondary = _named([tap for tap in taps if tap != primary], "sec")
    client = _named(free, "client")
    return _Suggestions(
        client=f"packet:{client}" if client else "",
        primary=f"tap:{primary}" if primary else "",
        secondary=f"tap:{secondary}" if secondary else "",
    )


def _named(names: list[str], part: str) -> str:
    """Give the name with a part in it, else the first one, else ""."""
    return next((name for name in names if part in name), names[0] if names else "")


def compose(args: argparse.Namespace, links: list[LinkState], ask: Ask) -> str:
    """Give the text of the configuration. Raises ConfigError for what is not given, nor suggested."""
    suggestions = suggest(links)
    found = ", ".join(f"{link.name} ({link.kind})" for link in links) or "none"
    ports = {}
    for side in ("client", "primary", "secondary"):
        given = getattr(args, side)
        suggestion = getattr(suggestions, side)
        ports[side] = given or ask(f"The {side}'s port (interfaces here: {found})", suggestion)
        if not ports[side]:
            raise ConfigError(f"--{side}", f"is not given, and nothing here suggests it; interfaces: {found}")
    backend = args.backend or ask("What makes checkpoints: null, command or qemu", "null")
    if backend not in BACKENDS:
        raise ConfigError("--backend", f'"{backend}" is not one of {", ".join(BACKENDS)}')
    mode = args.mode or ask("Mode: observe (only counts) or protect", "observe")
    options = _BACKEND_TEXTS[backend](args, ask)
    return _TEMPLATE.format(
        mode=toml_value(mode), backend=toml_value(backend), options=options,
        **{side: toml_value(url) for side, url in ports.items()},
    )  # fmt: skip


def _null(args: argparse.Namespace, ask: Ask) -> str:
    return (
        "# It copies nothing: enough to observe, and for guests that are known to be deterministic.\n"
        "# assume_deterministic = false  # true where they are\n"
    )


def _command(args: argparse.Namespace, ask: Ask) -> str:
    return (
        "# Programs of yours; each gets a JSON description on standard input. See docs/checkpointers.md.\n"
        f"checkpoint = [\"{_PROGRAMS}/checkpoint\"]  # copy the primary's state over the secondary's\n"
        f'promote = ["{_PROGRAMS}/promote"]        # make the secondary the one that runs\n'
        f'fence = ["{_PROGRAMS}/fence"]            # before that: make sure that the other one is dead\n'
    )


def _qemu(args: argparse.Namespace, ask: Ask) -> str:
    lines = ["# QEMU's own COLO, by its monitors (-qmp unix:PATH,server=on,wait=off). See docs/qemu.md.\n"]
    for side, suggestion in _MONITORS.items():
        given = getattr(args, f"{side}_monitor")
        lines.append(f"{side} = {toml_value(given or ask(f'The monitor of the {side}', suggestion))}\n")
    lines.append('# migrate_uri = "tcp:192.0.2.2:4444"  # where the secondary waits: its -incoming address\n')
    return "".join(lines)


_BACKEND_TEXTS: Final[Mapping[str, Callable[[argparse.Namespace, Ask], str]]] = {
    "null": _null,
    "command": _command,
    "qemu": _qemu,
}

_TEMPLATE: Final = """\
# colo-compare: one pair of guests. Every key, its unit and its default: docs/configuration.md.
# What is commented out shows the default. Then: colo-compare doctor -c FILE, colo-compare run -c FILE.

[proxy]
# protect: the client sees only what both guests said. observe: everything passes, and what would have
# diverged is counted: begin with it, to learn whether the workload suits COLO.
mode = {mode}
# compare_timeout = "3s"        # a frame held longer than this asks for a checkpoint
# coalesce = "0s"               # wait this long after a divergence, so that more share its checkpoint
# max_interval = "off"          # a checkpoint at least this often
# max_held_bytes = "64MiB"      # beyond it the primary is not read
# on_secondary_loss = "solo"    # solo: the primary serves on alone; block: nothing goes out

[ports]
# packet:IF is an interface without an address of its own, tap:IF a tap (no privilege at all, if it belongs
# to the proxy's user); stream+unix:// and stream+tcp:// are QEMU's sockets. See docs/ports.md.
client = {client}
primary = {primary}
secondary = {secondary}

[checkpointer]
backend = {backend}
{options}
[control]
# socket = "/run/colo-compare/control.sock"  # what status, promote and the other commands ask
# mode = "0600"                              # who may use it may control the proxy

[http]
# listen = "off"                # "127.0.0.1:9464" serves /metrics, /healthz and /readyz

[capture]
# directory = "off"             # a pcapng file for each divergence goes here

[log]
# level = "info"
# format = "text"               # or json
"""


def _check(text: str) -> None:
    """Raise ConfigError if the text is no configuration."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "colo-compare.toml")
        path.write_text(text, encoding="utf-8")
        load_config(path, {})


def _take_suggestion(question: str, suggestion: str) -> str:
    return suggestion


def _ask(question: str, suggestion: str) -> str:
    """Ask on the terminal; standard output may be where the configuration goes."""
    hint = f" [{suggestion}]" if suggestion else ""
    print(f"{question}{hint}: ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        raise ConfigError("config init", "the answers ended: nothing was written")
    return answer.strip() or suggestion
