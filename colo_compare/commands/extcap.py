"""`colo-compare extcap`: a running proxy as an interface in Wireshark.

Wireshark runs the programs in its extcap folder and asks them, by options, what they offer
(https://www.wireshark.org/docs/wsdg_html_chunked/ChCaptureExtcap.html). `colo-compare-extcap` is this
command under a name of its own, to be linked there.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from colo_compare import __version__
from colo_compare.commands.capture import copy
from colo_compare.commands.client import NEGATIVE, OK, add_socket, socket_path
from colo_compare.errors import CaptureError, ColoCompareError

INTERFACE: Final = "colo-compare"
_WORDS: Final = f"extcap {{version={__version__}}}{{display=colo-compare}}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments: those of the protocol."""
    add_socket(parser)
    parser.add_argument("--extcap-interfaces", action="store_true", help="list what can be captured")
    parser.add_argument("--extcap-interface", metavar="NAME", default=INTERFACE, help="which of them")
    parser.add_argument("--extcap-version", metavar="VERSION", help="Wireshark's version")
    parser.add_argument("--extcap-dlts", action="store_true", help="list its link types")
    parser.add_argument("--extcap-config", action="store_true", help="list its options")
    parser.add_argument("--extcap-capture-filter", metavar="FILTER", help="refused: there is none")
    parser.add_argument("--capture", action="store_true", help="capture into --fifo until it is closed")
    parser.add_argument("--fifo", metavar="PATH", type=Path, help="where to")
    parser.add_argument("--new", action="store_true", help="only what comes from now on")


def run(args: argparse.Namespace) -> int:
    """Answer one question of Wireshark's, or capture."""
    if args.extcap_interfaces:
        print(_WORDS)
        print(f"interface {{value={INTERFACE}}}{{display=COLO proxy: client, primary, secondary}}")
    elif args.extcap_interface != INTERFACE:
        raise CaptureError(f'no interface "{args.extcap_interface}": there is only {INTERFACE}')
    elif args.extcap_dlts:
        print("dlt {number=1}{name=EN10MB}{display=Ethernet}")
    elif args.extcap_config:
        print(
            "arg {number=0}{call=--socket}{display=Control socket}{type=string}"
            f"{{default={socket_path(args)}}}{{tooltip=Of the proxy's configuration: [control] socket}}"
        )
        print(
            "arg {number=1}{call=--new}{display=Only new frames}{type=boolflag}{default=false}"
            "{tooltip=Leave out the frames that the proxy keeps already}"
        )
    elif args.extcap_capture_filter:
        raise CaptureError("there is no capture filter here: use a display filter")
    elif args.capture:
        _capture(args)
    else:
        raise CaptureError("nothing is asked for: --extcap-interfaces, --extcap-dlts, --capture --fifo PATH")
    return OK


def _capture(args: argparse.Namespace) -> None:
    if args.fifo is None:
        raise CaptureError("--capture needs --fifo PATH")
    total: dict[str, Any] = {"frames": 0, "missed": 0}
    try:
        with args.fifo.open("wb") as fifo:
            copy(args, {"before": not args.new}, fifo, total)
    except BrokenPipeError:
        pass  # Wireshark has stopped
    except OSError as error:
        raise CaptureError(f"{args.fifo}: cannot be written: {error.strerror}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a program of its own."""
    parser = argparse.ArgumentParser(prog="colo-compare-extcap", description=__doc__)
    add_arguments(parser)
    args, _ = parser.parse_known_args(argv)  # a newer Wireshark may ask for more
    try:
        return run(args)
    except ColoCompareError as error:
        print(f"colo-compare-extcap: {error}", file=sys.stderr)
        return NEGATIVE
    except KeyboardInterrupt:  # how Wireshark stops it
        return OK
