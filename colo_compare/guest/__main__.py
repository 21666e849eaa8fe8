"""``python -m colo_compare.guest``: one embedded guest as a process."""

import sys

import trio

from colo_compare.errors import ColoCompareError
from colo_compare.guest import options, process


def main() -> None:
    """Run a guest; a mistake is one line on stderr and exit status 1."""
    chosen = options.parse(sys.argv[1:])
    try:
        trio.run(process.run, chosen)
    except* (ColoCompareError, OSError, ValueError) as group:
        sys.exit(f"colo_compare.guest: {_first(group)}")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    main()
