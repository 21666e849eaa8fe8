"""`colo-compare demo --vmm qemu`: two real Linux guests, one of which dies, and a third."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from colo_compare.demo.qemu.image import Image
from colo_compare.demo.qemu.lab import GUEST4, Lab
from colo_compare.demo.qemu.visitors import Download, Visitor, differing, echo, page
from colo_compare.demo.screen import Screen
from colo_compare.errors import SetupError

KVM: Final = Path("/dev/kvm")
KVM_BOOT_LIMIT: Final = 10.0  # seconds; under KVM a guest boots in two
MIB: Final = 1 << 20
LOOK: Final = 6.0  # seconds that the pair is watched at work
TICK: Final = 0.1
LONGEST_WAIT: Final = 5.0  # seconds that a client may wait when its server dies: these guests are slow

DRAWING: Final = f"""\
                   .--- QEMU, guest A, {GUEST4} (primary)
client --- proxy ---        (QEMU's COLO copies A's memory and devices to B)
                   '--- QEMU, guest B, {GUEST4} (secondary), the same MAC
"""


def show_guests(screen: Screen, guest: Image, size: int) -> None:
    """Show it; the download has `size` bytes. Raises SetupError where the machine does not allow it."""
    screen.title("1. Two guests become one service")
    with started(screen, guest) as lab:
        screen.show(DRAWING)
        lab.protect()
        screen.say("Both run the same Linux now: the proxy had guest A copied to guest B by QEMU's COLO.")
        visitors = {"pages": page(lab), "echoes": echo(lab), "differing": differing(lab)}
        for visitor in visitors.values():
            visitor.start()
        try:
            _work(screen, lab, visitors)
            _fail_over(screen, lab, visitors, size)
            _protect_again(screen, lab, visitors)
        finally:
            for visitor in visitors.values():
                visitor.stop()
        _judge(screen, lab, visitors)


@contextmanager
def started(screen: Screen, guest: Image) -> Iterator[Lab]:
    """Boot two guests, under KVM where they boot under it, else under TCG."""
    with ExitStack() as stack:
        if _kvm_is_there():
            lab = stack.enter_context(Lab(replace(guest, accelerator="kvm")))
            try:
                lab.boot(limit=KVM_BOOT_LIMIT)
            except SetupError:
                screen.say("A guest does not boot under KVM on this machine, so QEMU translates (TCG): slow.")
                stack.pop_all().close()
            else:
                yield lab
                return
        else:
            screen.say("There is no KVM on this machine, so QEMU translates the guests' code (TCG): slow.")
        lab = stack.enter_context(Lab(guest))
        lab.boot()
        yield lab


def _kvm_is_there() -> bool:
    try:
        KVM.open("rb+", buffering=0).close()
    except OSError:
        return False
    return True


def _work(screen: Screen, lab: Lab, visitors: dict[str, Visitor]) -> None:
    screen.title("2. They differ, and the clients cannot tell")
    screen.say(
        "One client gets pages, one talks to an echo service, one asks for what each guest reads from its "
        "own clock, once in a while. There the guests differ, and its answer waits for a checkpoint."
    )
    end = time.monotonic() + LOOK
    _watch(screen, lab, visitors, lambda: time.monotonic() > end)
    screen.show(_line(lab, visitors))
    counters = lab.counters()
    diverged = counters["divergences"]["payload"]
    screen.check("differing answers", f"{diverged} held back until a checkpoint", diverged > 0)
    matched, covered = counters["released"]["matched"], counters["released"]["covered"]
    screen.check("released", f"{matched} frames compared, {covered} by checkpoints", matched > covered)


def _fail_over(screen: Screen, lab: Lab, visitors: dict[str, Visitor], size: int) -> None:
    screen.title("3. A download outlives its server")
    download = Download(lab, size)
    download.start()
    screen.say(f"A fourth client downloads {size // MIB} MiB.")
    over: Callable[[], bool] = lambda: not download.is_alive()  # noqa: E731 - said twice
    _watch(screen, lab, visitors, lambda: download.received > size // 3 or over(), download)
    lab.machines[0].kill()
    screen.say("KILLED guest A: its QEMU process is dead (SIGKILL).")
    before = {name: visitor.answers for name, visitor in visitors.items()}
    _watch(screen, lab, visitors, over, download)
    lab.wait_for("end of the pair", lambda: lab.proxy.status()["mode"] == "solo")
    screen.say(
        f"Guest B has taken over, on the same connections. The download is complete; its longest wait for a "
        f"byte was {download.longest * 1000:.0f} ms."
    )
    seen = download.error or f"{download.received} bytes, each in its place"
    screen.check("download", seen, download.right)
    screen.check("its longest wait", f"{download.longest * 1000:.0f} ms", download.longest < LONGEST_WAIT)
    lab.wait_for("answers", lambda: all(visitors[name].answers > before[name] for name in visitors))


def _protect_again(screen: Screen, lab: Lab, visitors: dict[str, Visitor]) -> None:
    screen.title("4. Protected again")
    screen.say("Guest B runs alone. A third guest is started, and made its secondary while all this goes on.")
    machine = lab.bring()
    lab.protect_again(machine)
    before = {name: visitor.answers for name, visitor in visitors.items()}
    end = time.monotonic() + LOOK / 3
    _watch(screen, lab, visitors, lambda: time.monotonic() > end)
    lab.wait_for("answers", lambda: all(visitors[name].answers > before[name] for name in visitors))
    screen.show(_line(lab, visitors))
    protected = lab.proxy.status()["protected"]
    screen.check("protected again", f"guest B, by guest {machine.name}", protected)


def _watch(
    screen: Screen,
    lab: Lab,
    visitors: dict[str, Visitor],
    done: Callable[[], bool],
    download: Download | None = None,
) -> None:
    """Keep the moving line up to date until something is so."""
    while not done():
        screen.move(_line(lab, visitors, download))
        time.sleep(TICK)


def _line(lab: Lab, visitors: dict[str, Visitor], download: Download | None = None) -> str:
    status: dict[str, Any] = lab.proxy.status()
    counters = status["counters"]
    causes = {cause: count for cause, count in counters["requests"].items() if count}
    pause = status["checkpointer"]["figures"]["last_pause_seconds"]
    progress = f"{download.received / MIB:.0f} MiB, " if download is not None else ""
    answers = ", ".join(f"{name} {visitor.answers}" for name, visitor in visitors.items())
    most = max(causes, key=lambda cause: causes[cause], default="")
    return (
        f"{progress}{answers}; {counters['checkpoints']['committed']} checkpoints "
        f"({most} {causes.get(most, 0)}), pause {pause * 1000:.0f} ms, held {status['held']['frames']}"
    )


def _judge(screen: Screen, lab: Lab, visitors: dict[str, Visitor]) -> None:
    for name, visitor in visitors.items():
        seen = f"{visitor.answers} answers, {visitor.wrong} wrong, longest {visitor.longest * 1000:.0f} ms"
        screen.check(name, visitor.error or seen, not visitor.error and not visitor.wrong)
    troubles = [line for machine in lab.machines for line in machine.troubles()]
    screen.check("the guests' kernels", troubles[0] if troubles else "no complaint", not troubles)
