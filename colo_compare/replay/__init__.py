"""`colo-compare replay`: an offline verdict over captures of what each of two guests sent."""

import argparse
import re
from pathlib import Path

from colo_compare.quantities import Duration
from colo_compare.replay.recording import Recording
from colo_compare.replay.report import as_json, as_text
from colo_compare.replay.timeline import ALIGNMENTS, START, lay_out
from colo_compare.replay.verdict import judge

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    for side in ("primary", "secondary"):
        parser.add_argument(
            f"--{side}", type=Path, required=True, metavar="PCAP", help=f"capture at the {side}'s interface"
        )
    parser.add_argument(
        "--client",
        type=Path,
        metavar="PCAP",
        help="capture of the client's frames; without it, those at the primary count",
    )
    parser.add_argument("--guest-mac", type=_mac, metavar="MAC", help="whose frames are the guests' own")
    parser.add_argument(
        "--align",
        choices=ALIGNMENTS,
        default=START,
        help="start: the first frame that both have is one moment (default); clock: they share one clock",
    )
    parser.add_argument(
        "--compare-timeout",
        type=_duration,
        default=Duration(3),
        metavar="SPAN",
        help="a frame that waited longer would have asked for a checkpoint (default: 3s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Compare the captures and print the verdict; 0 if the guests said the same, 1 if not.

    Raises CaptureError if a capture cannot be used.
    """
    timeline = lay_out(
        Recording(args.primary),
        Recording(args.secondary),
        None if args.client is None else Recording(args.client),
        args.guest_mac,
        args.align,
    )
    verdict = judge(timeline, args.compare_timeout)
    if args.json:
        print(as_json(verdict))
    else:
        for line in as_text(verdict):
            print(line)
    return 0 if verdict.equal else 1


def _mac(text: str) -> bytes:
    if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", text):
        raise argparse.ArgumentTypeError(f"{text} is no MAC address: write it as 52:54:00:12:34:56")
    return bytes.fromhex(text.replace(":", ""))


def _duration(text: str) -> Duration:
    try:
        return Duration.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
