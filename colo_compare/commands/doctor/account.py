"""The user that runs the proxy, who need not be the one that asks the doctor."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from colo_compare.errors import ConfigError

CAP_NET_ADMIN: Final = 12  # linux/capability.h
CAP_NET_RAW: Final = 13


@dataclass(frozen=True)
class Account:
    """A user, and the capabilities of its processes, as far as they can be known."""

    name: str
    uid: int
    gid: int
    capabilities: int | None  # a bit set; None: not known, as it is another user's

    def may(self, capability: int) -> bool:
        """Whether it surely has a capability."""
        return self.capabilities is not None and self.capabilities >> capability & 1 == 1

    def can_write(self, place: Path) -> bool:
        """Whether it may write to a file, or make one in a directory, by owner and mode."""
        state = place.stat()
        if self.uid == 0:
            return True
        shift = 6 if state.st_uid == self.uid else 3 if state.st_gid == self.gid else 0
        return state.st_mode >> shift & 0o2 != 0


def this_account() -> Account:
    """Give the user of this process."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Account(name, uid, os.getegid(), effective_capabilities(Path("/proc/self/status")))


def named_account(name: str) -> Account:
    """Give another user, of whose capabilities nothing is known. Raises ConfigError if there is none."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError("--user", f"there is no user {name} on this machine") from None
    if entry.pw_uid == os.geteuid():
        return this_account()
    return Account(name, entry.pw_uid, entry.pw_gid, -1 if entry.pw_uid == 0 else None)


def effective_capabilities(status: Path) -> int:
    """Read the effective capabilities of a process from its /proc/PID/status (man 5 proc)."""
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
