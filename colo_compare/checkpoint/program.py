"""Running one program of the operator's, with bounds on everything it can do to us.

What it prints is read and bounded, its time is limited, and when it must end its whole process group ends.
"""

import math
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from subprocess import PIPE
from typing import Final

import trio
import trio.abc

_PIPE: Final = 65536  # what a pipe holds (pipe(7)), so one read takes all that is in it
_LONGEST_LINE: Final = 65536  # of standard output; the rest of the line is lost
_TAIL: Final = 4096  # bytes of standard error that are kept
_TAIL_LINES: Final = 4  # lines of these that go into a message


@dataclass(frozen=True)
class Ending:
    """How a program ended."""

    status: int | None  # exit status, or minus the signal that ended it; None when it could not be started
    timed_out: bool
    seconds: float
    words: str  # the last lines of its standard error, on one line

    def describe(self) -> str:
        """Say it for people, without the name of the program."""
        if self.status is None:
            how = "cannot be started"
        elif self.status < 0:
            how = f"was ended by {signal.Signals(-self.status).name}"
        else:
            how = f"exited with {self.status}"
        if self.timed_out:
            how = f"took too long ({self.seconds:.1f} s) and {how}"
        return f"{how}: {self.words}" if self.words else how


class Program:
    """One run of a program. `run` waits for its end; `listen` may call `write` meanwhile."""

    def __init__(
        self, argv: Sequence[str], environ: Mapping[str, str], *, timeout: float, kill_after: float
    ) -> None:
        self._argv = argv
        self._environ = environ
        self._timeout = timeout
        self._kill_after = kill_after
        self._deadline = math.inf
        self._exited = trio.Event()
        self._reading = trio.CancelScope()
        self._drained = False
        self._tail = bytearray()

    async def run(
        self, first_input: bytes, listen: Callable[[bytes], Awaitable[None]], *, keep_open: bool
    ) -> Ending:
        """Start it, give it `first_input`, call `listen` with each line of its output, and wait for its end.

        Its standard input is closed after `first_input` unless `keep_open`. Raises whatever `listen` raises.
        Then, on time-out and when cancelled, its process group gets
        SIGTERM, and `kill_after` seconds later SIGKILL. It leaves no zombie.
        """
        started = trio.current_time()
        self._deadline = started + self._timeout
        try:
            self._process = await trio.lowlevel.open_process(
                self._argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=self._environ, start_new_session=True
            )
        except OSError as error:
            return Ending(None, timed_out=False, seconds=0.0, words=error.strerror or str(error))
        # A descriptor of our own tells of its death without reaping it. Until it is reaped its number is not
        # given to another process, so its group can be signalled safely.
        pidfd = os.pidfd_open(self._process.pid)
        try:
            mistake = await self._attend(pidfd, first_input, listen, keep_open=keep_open)
            timed_out = mistake is None and not self._exited.is_set()
        finally:
            with trio.CancelScope(shield=True):
                await self._end(pidfd)
            os.close(pidfd)
        if mistake is not None:
            raise mistake
        status = self._process.returncode
        return Ending(
            status=-signal.SIGKILL if status is None else status,
            timed_out=timed_out,
            seconds=trio.current_time() - started,
            words=_last_words(bytes(self._tail)),
        )

    async def write(self, data: bytes) -> None:
        """Write to its standard input. Does nothing when it does not read (any more)."""
        assert self._process.stdin is not None
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._process.stdin.send_all(data)

    async def _attend(
        self, pidfd: int, first_input: bytes, listen: Callable[[bytes], Awaitable[None]], *, keep_open: bool
    ) -> Exception | None:
        """Serve it until it ends or its time is over; give what `listen` raised."""
        assert self._process.stdin is not None
        mistake: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, pidfd)
            nursery.start_soon(self._collect_errors)
            await self.write(first_input)  # shorter than a pipe, so it does not wait for the program
            if not keep_open:
                await self._process.stdin.aclose()
            try:
                await self._read_lines(listen)
            except Exception as error:
                mistake = error  # given back, for a nursery would make a group of it
            nursery.cancel_scope.cancel()
        return mistake

    async def _watch(self, pidfd: int) -> None:
        await trio.lowlevel.wait_readable(pidfd)
        self._exited.set()
        self._reading.cancel()

    async def _read_lines(self, listen: Callable[[bytes], Awaitable[None]]) -> None:
        line = bytearray()
        while chunk := await self._receive():
            *lines, line = (line + chunk).split(b"\n")
            del line[_LONGEST_LINE:]
            for complete in lines:
                await listen(bytes(complete))
        if line:
            await listen(bytes(line))
        with trio.CancelScope(deadline=self._deadline):
            await self._exited.wait()

    async def _receive(self) -> bytes:
        """Give more of its output; nothing at the end of it, after its exit, and when its time is over.

        The end of the output alone would not do: a child that it left behind may keep the pipe open.
        """
        assert self._process.stdout is not None
        if not self._exited.is_set():
            # The deadline ends the waiting only, never `listen`: the proxy is not interrupted in a step.
            with trio.CancelScope(deadline=self._deadline) as self._reading:
                return bytes(await self._process.stdout.receive_some(_PIPE))
        if not self._exited.is_set() or self._drained:
            return b""
        self._drained = True
        return _read_now(self._process.stdout)

    async def _collect_errors(self) -> None:
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.receive_some(_PIPE):
            self._keep(chunk)

    def _keep(self, chunk: bytes | bytearray) -> None:
        self._tail += chunk
        del self._tail[:-_TAIL]

    async def _end(self, pidfd: int) -> None:
        """See to it that it has ended, and let go of everything that belongs to it."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        if not self._exited.is_set():
            _signal_group(process.pid, signal.SIGTERM)
            await _wait_at_most(pidfd, self._kill_after)
            _signal_group(process.pid, signal.SIGKILL)
            # A process in an uninterruptible wait (a dead disk) does not die of SIGKILL either. A failover
            # must not wait for it: subprocess reaps it when it starts the next one.
            await _wait_at_most(pidfd, self._kill_after)
        self._keep(_read_now(process.stderr))
        for stream in (process.stdin, process.stdout, process.stderr):
            await stream.aclose()
        process.poll()


async def _wait_at_most(pidfd: int, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await trio.lowlevel.wait_readable(pidfd)


def _signal_group(group: int, number: int) -> None:
    # PermissionError: it became another user (sudo). Closing its pipes is all that is left to do then.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _read_now(pipe: trio.abc.ReceiveStream) -> bytes:
    """Give what is in a pipe, without waiting."""
    assert isinstance(pipe, trio.lowlevel.FdStream)
    try:
        return os.read(pipe.fileno(), _PIPE)
    except BlockingIOError:
        return b""


def _last_words(tail: bytes) -> str:
    lines = [line.strip() for line in tail.decode(errors="replace").splitlines()]
    shown = " | ".join([line for line in lines if line][-_TAIL_LINES:])
    return "".join(letter if letter.isprintable() else "?" for letter in shown)
