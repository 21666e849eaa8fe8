"""Network namespaces that leave nothing behind.

A `Namespace` is a thread that has unshared its network namespace (unshare(2), CLONE_NEWNET is per thread).
Sockets and processes made by that thread belong to it for as long as they live. There is no name under
/run/netns to clean up, and no root file system to write to: the kernel takes the namespace, its interfaces
and its addresses away when the thread and the last of its sockets and processes are gone, however this
program ends. (`ip netns` was the alternative: names that survive a crash, and a writable /run.)
"""

import ctypes
import os
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, ParamSpec, TypeVar

import colo_compare
from colo_compare.errors import SetupError

P = ParamSpec("P")
T = TypeVar("T")

# include/uapi/linux/sched.h
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000

# The two switches by which distributions keep unprivileged user namespaces off.
SWITCHES: Final = (
    ("kernel.unprivileged_userns_clone", "0", "1"),  # Debian's kernels
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),  # Ubuntu 23.10 and later
    ("user.max_user_namespaces", "0", "15000"),
)


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces. Raises OSError. (`os.unshare` comes with Python 3.12.)"""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def sysctl(name: str, value: str) -> None:
    """Write one sysctl of the calling thread's network namespace. Raises SetupError."""
    path = Path("/proc/sys", *name.split("."))
    try:
        path.write_text(value)
    except OSError as error:
        raise SetupError(
            f"{name} cannot be set to {value}: {error.strerror}; mount /proc/sys writable"
        ) from error


def become_root() -> None:
    """Gain the right to make network namespaces: as root nothing is to do, else by a user namespace.

    The caller must have one thread only (CLONE_NEWUSER). Raises SetupError, which says what forbids it.
    """
    if os.geteuid() == 0:
        return
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
        # setgroups(2) must be given up before an unprivileged gid_map is accepted: user_namespaces(7).
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise SetupError(f"a user namespace cannot be made: {error.strerror}; {_way_out()}") from error


def _way_out() -> str:
    """Name the switches that are off, as a command to run."""
    wrong = []
    for name, off, on in SWITCHES:
        with suppress(OSError):
            if Path("/proc/sys", *name.split(".")).read_text().strip() == off:
                wrong.append(f"sysctl -w {name}={on}")
    if wrong:
        return f"run `{'; '.join(wrong)}` as root, or run this as root"
    return "no sysctl forbids it, so a container's seccomp profile may: run this outside of it, or as root"


def _environment() -> dict[str, str]:
    """Give the environment in which a child imports this very package, installed or not.

    Not one that happens to lie in the current directory, where `python -m` looks first.
    """
    root = str(Path(colo_compare.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


class Namespace:
    """One network namespace, its interfaces (only `lo`, down, at first) and its processes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.processes: list[subprocess.Popen[bytes]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        try:
            self.call(unshare, CLONE_NEWNET)
        except OSError as error:
            self._thread.shutdown()
            raise SetupError(
                f"a network namespace cannot be made: {error.strerror}; run it as root (CAP_SYS_ADMIN)"
            ) from error

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the namespace and give its result: a socket that it makes stays there."""
        return self._thread.submit(function, *args, **kwargs).result()

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program in the namespace, with which it dies. A Python finds this very package.

        The parent-death signal is tied to the thread that forked (prctl(2), PR_SET_PDEATHSIG), which is the
        namespace's own; it has its session for itself, so that a Ctrl-C on the terminal reaches this
        program only, which ends the others in its order.
        """
        try:
            process = self.call(
                subprocess.Popen,
                ["setpriv", "--pdeathsig", "KILL", *argv],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=_environment(),
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise SetupError("setpriv is missing: install util-linux (2.33 or newer)") from error
        self.processes.append(process)
        return process

    def kill(self) -> None:
        """Kill its processes at once and wait until they are gone."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with suppress(BrokenPipeError):
                        stream.close()
        self.processes.clear()

    def close(self) -> None:
        """Kill its processes and leave the namespace. Safe to call twice."""
        self.kill()
        self._thread.shutdown()
