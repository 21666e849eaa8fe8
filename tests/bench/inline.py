"""Inline, between real TCP stacks: the proxy against a bare relay, and against a bridge to one guest."""

import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tests.bench import frames, network, programs
from tests.bench.comparers import Memory
from tests.bench.network import BRIDGE, PROXY, RELAY, WAITING, Network
from tests.bench.report import AT_LEAST, AT_MOST, Results, Row, medians, ratio

TABLE = "inline"
GB = 1e9
FLOWS = 1000  # of the frames that both guests send at once
INTERVAL = 1000  # us from one of them to the next

Samples = dict[str, dict[str, list[float]]]  # by what was measured, by what is between


class Inline:
    """The labs of the table, all built, idle while another one is measured."""

    def __init__(self, results: Results, rounds: int, seconds: float, peers: Sequence[str]) -> None:
        self.results = results
        self.rounds = rounds
        self.seconds = seconds
        self.peers = peers

    def _each(
        self,
        measure: Callable[[Network], dict[str, float]],
        *,
        offloads: bool = True,
        peers: Sequence[str] = (),
    ) -> Samples:
        """Measure all peers in turns; gives their samples."""
        samples: Samples = {}
        with ExitStack() as stack:
            labs = {
                between: stack.enter_context(network.network(between, offloads=offloads))
                for between in peers or self.peers
            }
            for _ in range(self.rounds):
                for between, lab in labs.items():
                    for name, value in measure(lab).items():
                        samples.setdefault(name, {}).setdefault(between, []).append(value)
        return samples

    def _row(self, case: str, unit: str, found: dict[str, list[float]], sense: str, target: float) -> None:
        against = ratio(found[PROXY], found[RELAY])
        pick = max if sense == AT_LEAST else min
        best = pick(found[PROXY]) / pick(found[RELAY])
        self.results.add(Row(TABLE, case, unit, medians(found), against, best, sense, target))

    def bulk(self, *, offloads: bool, target: float) -> None:
        """Measure a stream that never ends."""
        kind = "GSO" if offloads else "1,500-byte frames"
        found = self._each(partial(_bulk, seconds=self.seconds), offloads=offloads)
        self._row(f"bulk TCP, {kind}", "Gbit/s", found["rate"], AT_LEAST, target)
        if offloads:
            self._row(f"bulk TCP, {kind}", "CPU s a GB", found["cpu"], AT_MOST, 1.3)

    def requests(self, *more: str) -> None:
        """Measure 64-byte requests and their answers; `more`: peers that stand beside the others here."""
        measured = partial(_requests, seconds=self.seconds, keep=self.results.latencies)
        found = self._each(measured, peers=(*self.peers, *more))
        for name in ("p50", "p99"):
            self._row(f"64-byte request/response, {name}", "us", found[name], AT_MOST, 1.3)

    def datagrams(self) -> None:
        """Measure small datagrams."""
        found = self._each(partial(_datagrams, seconds=self.seconds))
        self._row("small UDP frames", "frames/s", found["rate"], AT_LEAST, 0.6)
        lost = medians(found["lost"])
        self.results.rows[-1].notes["lost"] = lost

    def hold(self, count: int) -> None:
        """Measure what lies between both guests' sending and the client's receiving."""
        found = self._each(partial(_pulse, count=count), peers=(PROXY, RELAY))
        case = "both guests answer at once: until the client has it, p99.9"
        worst = medians(found["p99.9"])
        row = Row(TABLE, case, "ms", worst, worst[PROXY], min(found["p99.9"][PROXY]), AT_MOST, 1.0)
        row.notes["p50"] = medians(found["p50"])
        self.results.add(row)


def _bulk(lab: Network, seconds: float) -> dict[str, float]:
    cpu = lab.cpu()
    size, nanoseconds = map(int, lab.client("bulk", str(seconds)).split())
    found = {"rate": size * 8 / nanoseconds}
    return found if lab.between == BRIDGE else {**found, "cpu": (lab.cpu() - cpu) / (size / GB)}


def _requests(lab: Network, seconds: float, keep: dict[str, list[float]]) -> dict[str, float]:
    took: NDArray[np.int64] = np.frombuffer(lab.client("rr", str(seconds)), np.int64)
    keep.setdefault(lab.between, []).extend(np.percentile(took, np.arange(0.5, 100, 0.5)) / 1e9)
    return {"p50": float(np.percentile(took, 50)) / 1e3, "p99": float(np.percentile(took, 99)) / 1e3}


def _datagrams(lab: Network, seconds: float) -> dict[str, float]:
    answers, nanoseconds, lost = map(int, lab.client("udp", str(seconds)).split())
    return {"rate": answers / nanoseconds * 1e9, "lost": float(lost)}


def _pulse(lab: Network, count: int) -> dict[str, float]:
    """Let both guests send the same frames at once, each waited for, over FLOWS flows."""
    ends = lab.far_ends()
    if not lab.pulses:
        _open_flows(*ends)
    numbers = np.arange(lab.pulses * count, (lab.pulses + 1) * count)
    lab.pulses += 1
    said = frames.data(numbers, FLOWS, 64)[:, 4:]
    memory = Memory(said.tobytes())
    words = [*(end.fileno() for end in ends), memory.fd, said.shape[1], count, INTERVAL]
    done = subprocess.run(
        [programs.program("pulse"), *map(str, words)],
        pass_fds=[*(end.fileno() for end in ends), memory.fd],
        stdout=subprocess.PIPE,
        check=True,
    )
    memory.close()
    for end in ends:
        end.close()
    took = np.frombuffer(done.stdout, np.int64)
    came = took[took >= 0] / 1e6
    if len(came) < count:
        raise RuntimeError(f"{count - len(came)} of {count} frames did not reach the client")
    return {"p50": float(np.percentile(came, 50)), "p99.9": float(np.percentile(came, 99.9))}


def _open_flows(client: socket.socket, primary: socket.socket, secondary: socket.socket) -> None:
    """Play the handshakes of the flows, which the kernels know nothing of."""
    requests, answers, confirmations = frames.handshakes(FLOWS)
    for request, answer, confirmation in zip(requests, answers, confirmations, strict=True):
        for sender, receiver, frame in (
            (client, secondary, request),  # it has reached the primary then, too
            (secondary, None, answer),
            (primary, client, answer),
            (client, secondary, confirmation),
        ):
            sender.send(frame)
            while receiver is not None and receiver.recv(2048)[6:14] != frame[6:14]:
                pass


def measure(results: Results, rounds: int, short: bool) -> None:
    """Measure the whole table."""
    why = network.missing() or programs.missing()
    if why:
        results.add(Row(TABLE, "all of it", "", {}, skipped=why))
        return
    table = Inline(results, rounds, 0.5 if short else 2.0, (PROXY, RELAY) if short else network.ALL)
    table.bulk(offloads=True, target=0.9)
    if not short:
        table.bulk(offloads=False, target=0.7)
    table.requests(*([] if short else [WAITING]))
    table.datagrams()
    if not short:
        table.hold(5000)
