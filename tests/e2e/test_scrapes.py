"""A scrape, and a storm of scrapers or of live pages, beside real frames: nobody waits for them."""

import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from colo_compare.demo import link
from colo_compare.demo.guest import ECHO_PORT
from colo_compare.demo.lab import GUEST4, Lab
from colo_compare.demo.proxy_process import toml

PORT = 9464
ATTEMPTS = 3
ROUNDS = 8  # of each kind, in turns, so that what else this machine does meets both alike
ROUND = 120  # frames in a round
LIMIT = 0.001  # seconds: no frame may wait for a scrape for longer

# Twice as many connections as a daemon keeps, each of which asks again as soon as it may; a third of them
# sends its requests byte by byte, and a third sends twenty at once and takes no answer.
STORM = """\
import socket, sys, threading, time

REQUEST = b"GET %s HTTP/1.1\\r\\nHost: x\\r\\nAccept: application/openmetrics-text\\r\\n\\r\\n"
REQUEST %= sys.argv[2].encode()

def storm(number, answers):
    while True:
        try:
            with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5) as scraper:
                if number % 3 == 1:
                    for byte in REQUEST[:-1]:
                        scraper.sendall(bytes([byte]))
                        time.sleep(0.01)
                elif number % 3 == 2:
                    scraper.sendall(REQUEST * 20)
                    time.sleep(0.5)
                else:
                    scraper.sendall(REQUEST)
                    while chunk := scraper.recv(65536):
                        if chunk.endswith((b"# EOF\\n", b"]}")):  # of metrics, and of the live page's state
                            answers.append(1)
                            scraper.sendall(REQUEST)
        except OSError:
            time.sleep(0.01)

answers = []
for number in range(32):
    threading.Thread(target=storm, args=(number, answers), daemon=True).start()
sys.stdin.readline()
print(len(answers), flush=True)
"""


@pytest.mark.parametrize("path", ["/metrics", "/page/state"])
def test_no_frame_waits_for_a_scrape(tmp_path: Path, path: str) -> None:
    """Compare a storm of scrapers on the proxy with the same storm on another daemon beside it.

    The storm itself needs processor time, of which there may be little. What it takes from everybody is in
    both kinds of rounds; what remains is what the proxy's own frames wait for.
    """
    with Lab() as lab:
        lab.proxy_namespace.call(link.set_up_loopback)
        lab.start(
            {
                "proxy": {"mode": "protect"},
                "checkpointer": {"backend": "null", "assume_deterministic": True},
                "http": {"listen": f"127.0.0.1:{PORT}", "page": True},
            }
        )
        beside(lab, tmp_path, PORT + 1)
        with lab.client.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.connect((GUEST4, ECHO_PORT))
            round_trips(asker)  # address resolution, and the first checkpoint
            # What else the machine does can only add: a proxy that lets frames wait fails each time.
            assert any(delays_nothing(lab, asker, tmp_path, path) for _ in range(ATTEMPTS))


def delays_nothing(lab: Lab, asker: socket.socket, directory: Path, path: str) -> bool:
    """Whether the round trips under a storm on the proxy take hardly longer than under one beside it."""
    times: dict[int, list[list[float]]] = {PORT: [], PORT + 1: []}
    answers = 0
    for _ in range(ROUNDS):
        for port, rounds in times.items():
            with storming(lab, directory, port, path) as storm:
                rounds.append(round_trips(asker))
            answers += storm.answers if port == PORT else 0
    assert answers > 4 * ROUNDS, "no storm"
    within = True
    for part in (0.5, 0.95):
        stormed, calm = [statistics.median(quantile(r, part) for r in rounds) for rounds in times.values()]
        print(f"{part:.0%}: {stormed * 1e6:.0f} us, without {calm * 1e6:.0f} us, {answers} answers")
        within = within and stormed < calm + LIMIT
    return within


def quantile(values: list[float], part: float) -> float:
    return sorted(values)[int(part * len(values))]


def beside(lab: Lab, directory: Path, port: int) -> None:
    """Start another daemon in the proxy's namespace, which has nothing to do."""
    config = directory / "beside.toml"
    config.write_text(
        toml(
            {
                "proxy": {"mode": "bypass"},
                "ports": {side: f"memory:{side}" for side in ("client", "primary", "secondary")},
                "control": {"socket": "off"},
                "http": {"listen": f"127.0.0.1:{port}", "page": True},
            }
        )
    )
    daemon = lab.proxy_namespace.start(
        [sys.executable, "-m", "colo_compare", "run", "-c", str(config)], stderr=subprocess.PIPE
    )
    assert daemon.stderr is not None
    while b"started: " not in (line := daemon.stderr.readline()):
        assert line, "the other daemon did not start"


def round_trips(asker: socket.socket) -> list[float]:
    """Give the time of each of ROUND echoes, which go through the proxy and its comparison."""
    times = []
    for number in range(ROUND):
        began = time.perf_counter()
        asker.send(b"%d" % number)
        assert select.select([asker], [], [], 5.0)[0], "no answer"
        asker.recv(100)
        times.append(time.perf_counter() - began)
        time.sleep(0.002)
    return times


@dataclass
class Storm:
    """What the scrapers got."""

    answers: int = 0


@contextmanager
def storming(lab: Lab, directory: Path, port: int, path: str) -> Iterator[Storm]:
    script = directory / "storm.py"
    script.write_text(STORM)
    storm = Storm()
    process = lab.proxy_namespace.start(
        [sys.executable, str(script), str(port), path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    time.sleep(0.3)  # until all of them are there
    yield storm
    said, _ = process.communicate(b"\n", timeout=10)
    storm.answers = int(said)
