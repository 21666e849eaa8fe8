"""The kernel's refusals, as errors that say what was attempted and what is missing."""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from colo_compare.errors import SetupError

NO_ADVICE: Final[Mapping[int, str]] = MappingProxyType({})


class PrivilegeMissing(SetupError):
    """The kernel wants a capability that this process lacks."""


def refused(attempt: str, code: int, advice: Mapping[int, str] = NO_ADVICE) -> SetupError:
    """Make the error for an attempt ("set ...") that failed with errno `code`; `advice` is by errno."""
    problem = f"cannot {attempt}: {os.strerror(code)}"
    if code in advice:
        return SetupError(f"{problem}; {advice[code]}")
    if code in (errno.EPERM, errno.EACCES):
        return PrivilegeMissing(
            f"{problem}; run as root, or with CAP_NET_ADMIN (and CAP_SYS_ADMIN for namespaces)"
        )
    return SetupError(problem)


@contextmanager
def attempting(attempt: str, advice: Mapping[int, str] = NO_ADVICE) -> Iterator[None]:
    """Turn an OSError inside into a SetupError that names the attempt."""
    try:
        yield
    except OSError as error:
        raise refused(attempt, error.errno or errno.EIO, advice) from error
