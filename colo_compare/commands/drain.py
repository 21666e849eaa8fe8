"""`colo-compare drain`: before maintenance, let everything that is held come to its end."""

import argparse

from colo_compare.commands.client import NEGATIVE, OK, add_json, add_socket, ask, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_socket(parser)
    add_json(parser)
    parser.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long to wait until nothing is held (default: 10); the client is not served meanwhile",
    )
    parser.add_argument("--end", action="store_true", help="end the drain: serve the client again")


def run(args: argparse.Namespace) -> int:
    """Begin or end a drain; OK if nothing is held, or the client is served again."""
    params = {"action": "end"} if args.end else {"action": "begin", "timeout": args.timeout}
    answer = ask(args, "drain", params, timeout=args.timeout + 10.0)
    if args.json:
        print_json(answer)
    elif args.end:
        print("serving: the client is read again")
    elif answer["empty"]:
        print("drained: nothing is held; the client waits until colo-compare drain --end")
    else:
        print(
            f"not drained: {answer['held']} frames are held, {answer['backlog']} wait for the client port; "
            "the client waits until colo-compare drain --end"
        )
    return OK if args.end or answer["empty"] else NEGATIVE
