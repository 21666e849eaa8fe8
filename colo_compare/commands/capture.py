"""`colo-compare capture`: what passes on all three sides, as a capture file."""

import argparse
import os
import sys
import time
from base64 import b64decode
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

from colo_compare.commands.client import NEGATIVE, OK, add_json, add_socket, follow, print_json
from colo_compare.errors import CaptureError, ControlError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_socket(parser)
    add_json(parser, "print the number of frames as JSON")
    parser.add_argument(
        "-w", "--write", metavar="FILE", help="where to (default: colo-compare-TIME.pcapng here; -: stdout)"
    )
    parser.add_argument(
        "--seconds", type=float, metavar="N", help="end after so long (default: until interrupted)"
    )
    parser.add_argument(
        "--new", action="store_true", help="only what comes from now on, without the frames kept already"
    )


def run(args: argparse.Namespace) -> int:
    """Write a capture; OK if every frame is in it."""
    path = args.write or time.strftime("colo-compare-%Y%m%dT%H%M%S.pcapng")
    total = {"file": path, "frames": 0, "missed": 0}
    with ExitStack() as stack:
        if path == "-":
            if sys.stdout.isatty():
                raise CaptureError("a capture is nothing for a terminal: write it to a file, or into a pipe")
            file: BinaryIO = sys.stdout.buffer
        else:
            file = _create(Path(path))
            stack.callback(_close, file)
        try:
            copy(args, {"seconds": args.seconds, "before": not args.new}, file, total)
        except KeyboardInterrupt:  # the way to end it
            pass
        except ControlError:  # the daemon has ended: what came before it is in the file
            if total["frames"]:
                _report(args, total)
            raise
    _report(args, total)
    return OK if not total["missed"] else NEGATIVE


def _report(args: argparse.Namespace, total: dict[str, Any]) -> None:
    """Say what is in the file."""
    if args.write == "-":
        return
    if args.json:
        print_json(total)
    else:
        missed = f", {total['missed']} are missing" if total["missed"] else ""
        print(f"{total['frames']} frames in {total['file']}{missed}")


def copy(args: argparse.Namespace, params: dict[str, Any], file: BinaryIO, total: dict[str, Any]) -> None:
    """Write what the daemon gives to a file, and add up its frames. Raises CaptureError, ControlError."""
    for piece in follow(args, "capture", params):
        total["frames"] += piece["frames"]
        total["missed"] += piece["missed"]
        try:
            file.write(b64decode(piece["pcapng"]))
            file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CaptureError(f"the capture cannot be written: {error.strerror}") from None


def _close(file: BinaryIO) -> None:
    with suppress(OSError):  # what could not be written has been told of, when it was
        file.close()


def _create(path: Path) -> BinaryIO:
    try:
        # For its owner only: it holds what the guests and their clients said.
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
    except OSError as error:
        raise CaptureError(f"{path}: cannot be written: {error.strerror}") from None
