"""`colo-compare check`: is a configuration right, and what is in effect?"""

import argparse
import os
from pathlib import Path

from colo_compare.commands.client import OK, print_json
from colo_compare.config import effective_toml, json_schema, load_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-c", "--config", metavar="FILE", type=Path, help="the configuration (TOML)")
    what.add_argument(
        "--schema", action="store_true", help="print the JSON schema of the configuration instead"
    )


def run(args: argparse.Namespace) -> int:
    """Print the effective configuration, or the schema. Raises ConfigError."""
    if args.schema:
        print_json(json_schema())
    else:
        print(effective_toml(load_config(args.config, os.environ)), end="")
    return OK
