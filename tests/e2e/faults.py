"""A story of three pairs and every fault that an alert is for, told to the real Prometheus."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from colo_compare.demo import link
from colo_compare.demo.client import Connection
from colo_compare.demo.guest import ECHO_PORT, HTTP_PORT
from colo_compare.demo.lab import GUEST4, Lab
from tests.e2e.prometheus import Prometheus

LIMIT = 20.0  # seconds for an alert to fire
EVERYBODY = "10.77.0.255"  # needs no address resolution, whose answers wait for a checkpoint

# Says what it does in a file that the test writes, as often as it is asked.
CHECKPOINT = """\
read -r request
echo '{"event": "paused"}'
read -r drained
. "$1"
sleep "$seconds"
echo '{"event": "figures", "pause": 0.012, "bytes": 1048576, "pages": 256}'
exit "$status"
"""

# A checkpointer of somebody else's package, which never gets ready.
NEVER_READY = """\
import msgspec
import trio
from colo_compare.checkpoint.contract import Capabilities, Checkpointer

class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass

class NeverReady(Checkpointer):
    Options = Options
    capabilities = Capabilities(True, True, True, False, False, False)
    ready = False

    async def run(self, handlers):
        await trio.sleep_forever()

    async def request(self, request): ...
    async def promote(self, side): ...
    async def abandon(self, side): ...
"""


class Story:
    """What happened, when, and which alerts fired."""

    def __init__(self, prometheus: Prometheus) -> None:
        self.prometheus = prometheus
        self.began = 0.0  # Unix time at which all daemons had been scraped
        self.calm = 0.0  # Unix time before the first fault
        self.alive = 0.0  # Unix time at which all daemons still answered, after all faults but the last two
        self.ended = 0.0
        self.pair = ""  # the instances
        self.bypassed = ""
        self.unready = ""
        self.fired: dict[str, bool] = {}
        self.in_good_health: set[tuple[str, str]] = set()  # what fired before the first fault

    def moment(self) -> float:
        """Wait for a moment at which the last scrape of each daemon has been answered, and give it."""
        now = time.time()

        def all_up() -> bool:
            nonlocal now
            now = time.time()
            return len(self.prometheus.query("up == 1", now)) == 3

        assert self.prometheus.until(all_up, LIMIT), "a daemon does not answer"
        return now

    def expect(self, *alerts: str, of: str) -> None:
        """Wait until each of these alerts of an instance fires, and note whether it did."""
        wanted = {(alert, of) for alert in alerts}
        seen: set[tuple[str, str]] = set()

        def all_seen() -> bool:
            seen.update(self.prometheus.firing() & wanted)
            return seen == wanted

        self.prometheus.until(all_seen, LIMIT)
        self.fired |= {alert: (alert, of) in seen for alert in alerts}


class Traffic:
    """What a client does all the time, until the end of a ``with`` statement."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._over = threading.Event()
        self.diverging = threading.Event()  # set: ask for what the guests answer differently, too
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            # Its connections may break: this is a story of faults.
            with suppress(OSError), Connection(self._lab.client, GUEST4, patience=5.0) as connection:
                while not self._over.wait(0.05):
                    connection.download(1 << 18)
                    send(self._lab.client.call, GUEST4, 4)
                    if self.diverging.is_set():
                        connection.request("/whoami/1000").read()

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()


def send(call: Callable[..., socket.socket], host: str, count: int, size: int = 100) -> None:
    """Send datagrams from a namespace to a host's echo port, and take no answer."""
    with call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for number in range(count):
            with suppress(BlockingIOError):
                sender.sendto(number.to_bytes(4, "big").ljust(size, b"\0"), (host, ECHO_PORT))


@contextmanager
def told(directory: Path) -> Iterator[Story]:
    """Tell the whole story, and give it while Prometheus still answers."""
    with ExitStack() as stack:
        prometheus = Prometheus(directory)
        stack.callback(prometheus.close)
        prometheus.start()
        story = Story(prometheus)
        pair = stack.enter_context(Lab())
        control = directory / "checkpoint.conf"
        story.pair = _start_pair(prometheus, pair, directory, control)
        bypassed = stack.enter_context(Lab())
        story.bypassed = _start_bypassed(prometheus, bypassed)
        unready = stack.enter_context(Lab())
        story.unready = _start_unready(prometheus, unready, directory)
        with Traffic(pair) as traffic:
            _good_health(story)
            _faults_of_others(story, bypassed, unready)
            _divergences(story, traffic, control)
            _full_table(story, pair)
            _no_processor(story, pair)
            _failover(story, pair)
        pair.proxy.kill()
        story.expect("ColoDown", of=story.pair)
        story.ended = time.time()
        prometheus.forget_all()
        story.expect("ColoAbsent", of="")
        yield story


def _start_pair(prometheus: Prometheus, lab: Lab, directory: Path, control: Path) -> str:
    program = directory / "checkpoint.sh"
    program.write_text(CHECKPOINT)
    _let_checkpoints(control)
    listen = prometheus.watch(lab)
    lab.start(
        {
            "proxy": {
                "mode": "protect", "max_flows": 64, "max_half_open": 64, "closed_timeout": "1s",
                "checkpoint_timeout": "20s", "max_failures": 1000,
            },
            "checkpointer": {
                "backend": "command", "checkpoint": ["sh", str(program), str(control)],
                "reports_pause": True, "copies_state": False, "timeout": "15s",
            },
            "http": {"listen": listen},
        }
    )  # fmt: skip
    return listen


def _start_bypassed(prometheus: Prometheus, lab: Lab) -> str:
    listen = prometheus.watch(lab)
    lab.start({"proxy": {"mode": "bypass"}, "http": {"listen": listen}})
    return listen


def _start_unready(prometheus: Prometheus, lab: Lab, directory: Path) -> str:
    package = directory / "packages"
    information = package / "never_ready-1.dist-info"
    information.mkdir(parents=True)
    (package / "never_ready.py").write_text(NEVER_READY)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: never-ready\nVersion: 1\n")
    (information / "entry_points.txt").write_text(
        "[colo_compare.checkpointers]\nnever-ready = never_ready:NeverReady\n"
    )
    listen = prometheus.watch(lab)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(package)
    try:
        lab.start(
            {
                "proxy": {"mode": "protect", "checkpoint_timeout": "10m", "max_held_frames": 64},
                "ports": lab.ports() | {"secondary": f"stream+unix://{lab.directory}/b.sock?listen=yes"},
                "checkpointer": {"backend": "never-ready"},
                "http": {"listen": listen},
            }
        )
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return listen


def _let_checkpoints(control: Path, *, take: float = 0.0, end: int = 0) -> None:
    new = control.with_suffix(".new")
    new.write_text(f"seconds={take}\nstatus={end}\n")
    new.rename(control)


def _good_health(story: Story) -> None:
    """Nothing is wrong with the pair: long enough for every window of the hastened rules."""
    story.began = story.moment()
    time.sleep(12.0)
    story.calm = story.moment()
    story.in_good_health = {alert for alert in story.prometheus.firing() if alert[1] == story.pair}


def _faults_of_others(story: Story, bypassed: Lab, unready: Lab) -> None:
    # The guest's frames are longer than the interface to the client takes.
    bypassed.proxy_namespace.call(link.set_up, "client", mtu=1000)
    for _ in range(5):
        send(bypassed.guests[0].namespace.call, EVERYBODY, 20, size=1400)
        time.sleep(0.2)
    # Nothing is ever compared here, so all that the primary says is held, up to the limit and beyond it.
    for _ in range(5):
        send(unready.guests[0].namespace.call, EVERYBODY, 20)
        time.sleep(0.2)
    story.expect("ColoBypassed", "ColoPortLosesFrames", of=story.bypassed)
    story.expect(
        "ColoCheckpointerNotReady", "ColoPortDisconnected", "ColoCheckpointStuck", "ColoHeldNearLimit",
        "ColoBackpressure", of=story.unready,
    )  # fmt: skip


def _divergences(story: Story, traffic: Traffic, control: Path) -> None:
    traffic.diverging.set()
    story.expect("ColoCheckpointsFrequent", of=story.pair)
    _let_checkpoints(control, end=75)
    story.expect("ColoCheckpointsFail", of=story.pair)
    _let_checkpoints(control, take=1.5)
    story.expect("ColoCheckpointsSlow", "ColoHoldTimeHigh", of=story.pair)
    traffic.diverging.clear()
    _let_checkpoints(control)


def _full_table(story: Story, lab: Lab) -> None:
    """More clients than there is room for."""
    with ExitStack() as stack:
        end = time.monotonic() + LIMIT
        while not lab.proxy.status()["counters"]["client_discarded"]["table_full"] and time.monotonic() < end:
            with suppress(TimeoutError):
                address = (GUEST4, HTTP_PORT)
                stack.enter_context(lab.client.call(socket.create_connection, address, 0.3))
        story.expect("ColoFlowTableNearlyFull", "ColoFramesDiscarded", of=story.pair)


def _no_processor(story: Story, lab: Lab) -> None:
    """Others take the processor from the daemon."""
    assert lab.proxy_namespace.processes
    (daemon,) = lab.proxy_namespace.processes
    for _ in range(6):
        daemon.send_signal(signal.SIGSTOP)
        time.sleep(0.25)
        daemon.send_signal(signal.SIGCONT)
        time.sleep(0.25)
    story.expect("ColoLoopLags", of=story.pair)


def _failover(story: Story, lab: Lab) -> None:
    lab.guests[0].kill()
    story.expect("ColoFailover", "ColoUnprotected", of=story.pair)
    time.sleep(2.0)
    story.alive = story.moment()
