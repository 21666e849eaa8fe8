"""`colo-compare run -c FILE`: the proxy."""

import argparse
import os
from pathlib import Path

from colo_compare import daemon
from colo_compare.commands.client import OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "-c", "--config", metavar="FILE", type=Path, required=True, help="the configuration (TOML)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the proxy until it is told to stop."""
    daemon.run(args.config, os.environ)
    return OK
