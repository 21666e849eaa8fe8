"""The kernel's refusals, as errors that say what was attempted and what is missing."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from colo_compare.errors import SetupError

_ADVICE: Final = {
    errno.EBUSY: "a process is attached to it: stop that process first",
    errno.EROFS: "it is mounted read-only here: let the container engine set it, or run privileged",
    errno.ENXIO: "load the tun module (modprobe tun)",
}


class PrivilegeMissing(SetupError):
    """The kernel wants a capability that this process lacks."""


def refused(attempt: str, code: int) -> SetupError:
    """Make the error for an attempt ("cannot set ...") that failed with errno `code`."""
    problem = f"cannot {attempt}: {os.strerror(code)}"
    if code in (errno.EPERM, errno.EACCES):
        return PrivilegeMissing(
            f"{problem}; run as root, or with CAP_NET_ADMIN (and CAP_SYS_ADMIN for namespaces)"
        )
    advice = _ADVICE.get(code)
    return SetupError(problem if advice is None else f"{problem}; {advice}")


@contextmanager
def attempting(attempt: str) -> Iterator[None]:
    """Turn an OSError inside into a SetupError that names the attempt."""
    try:
        yield
    except OSError as error:
        raise refused(attempt, error.errno or errno.EIO) from error
