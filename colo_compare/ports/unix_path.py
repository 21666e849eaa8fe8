"""Paths of unix sockets: bound, taken over from a process that died, and removed again."""

import errno
import socket
import stat
from pathlib import Path
from typing import Final

from colo_compare.errors import PortUnavailable

_REASONS: Final = {
    errno.ENOENT: "its directory does not exist",
    errno.EACCES: "this user may not write to its directory",
    errno.EROFS: "its directory is read-only",
}


class UnixPath:
    """The path that a socket of ours is bound to."""

    def __init__(self, sock: socket.socket, path: str, url: str) -> None:
        """Bind the socket. A path that nobody answers on is taken over.

        Raises PortUnavailable.
        """
        self._path = Path(path)
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                why = _REASONS.get(error.errno or 0, error.strerror)
                raise PortUnavailable(f"{url}: {path} cannot be bound: {why}") from None
            self._remove_stale(sock.type, url)
            try:
                sock.bind(path)
            except OSError as second:
                raise PortUnavailable(f"{url}: {path} cannot be bound: {second.strerror}") from None
        self._identity = self._look()

    def _remove_stale(self, kind: socket.SocketKind, url: str) -> None:
        """Unlink the socket of a process that is gone."""
        if not stat.S_ISSOCK(self._path.lstat().st_mode):
            raise PortUnavailable(f"{url}: {self._path} is there and is no socket: remove it yourself")
        with socket.socket(socket.AF_UNIX, kind) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(self._path))
            except ConnectionRefusedError:
                self._path.unlink(missing_ok=True)
                return
            except OSError:
                pass  # somebody is there, too busy to answer or of another kind
        raise PortUnavailable(f"{url}: {self._path} is in use by a running process: end it, or use another")

    def _look(self) -> tuple[int, int]:
        status = self._path.lstat()
        return status.st_dev, status.st_ino

    def remove(self) -> None:
        """Unlink it, unless somebody else has bound the path since."""
        try:
            if self._look() == self._identity:
                self._path.unlink()
        except OSError:
            pass  # it is gone already, or not ours to remove any more
