"""The demo's checkpointer: the `command` backend runs this module, which asks at a desk and waits.

So the demo decides when a checkpoint is made, and can look at what the client has while it is not.
"""

import json
import select
import socket
import sys
from pathlib import Path
from typing import Any, Final

from colo_compare.checkpoint.command import SECONDARY_INTACT
from colo_compare.errors import CheckpointerError

COMMIT: Final = b"commit\n"


class CheckpointDesk:
    """Where requests for checkpoints are laid down, one at a time, and stay until `commit`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._petitioner: socket.socket | None = None

    def command(self) -> list[str]:
        """Give the program for ``[checkpointer] checkpoint``."""
        return [sys.executable, "-m", __name__, str(self._path)]

    def next(self, limit: float) -> dict[str, Any]:
        """Wait for a request and give what the program was told. Raises CheckpointerError if none comes."""
        if not select.select([self._listener], [], [], limit)[0]:
            raise CheckpointerError(f"no checkpoint was requested within {limit:g} s")
        self._petitioner, _ = self._listener.accept()
        with self._petitioner.makefile("rb") as stream:
            request: dict[str, Any] = json.loads(stream.readline())
        return request

    def commit(self) -> None:
        """Let the program say that the checkpoint is made."""
        self._answer(COMMIT)

    def refuse(self) -> None:
        """Let the program say that it could not be made, and that the secondary is what it was."""
        self._answer(b"")

    def _answer(self, word: bytes) -> None:
        assert self._petitioner is not None
        self._petitioner.sendall(word)
        self._petitioner.close()
        self._petitioner = None

    def close(self) -> None:
        """Close the desk."""
        self._listener.close()
        if self._petitioner is not None:
            self._petitioner.close()

    def __enter__(self) -> "CheckpointDesk":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def main() -> int:
    """Carry the request from stdin to the desk, and its answer to the exit code."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as desk:
        desk.connect(sys.argv[1])
        desk.sendall(sys.stdin.readline().encode())
        with desk.makefile("rb") as stream:
            return 0 if stream.readline() == COMMIT else SECONDARY_INTACT


if __name__ == "__main__":
    sys.exit(main())
