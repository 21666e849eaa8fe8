"""`colo-compare suitability` and a real proxy in mode observe: workloads that suit COLO, and that do not."""

import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest

from colo_compare.demo.client import Connection
from colo_compare.demo.guest import DNS_PORT
from colo_compare.demo.lab import GUEST4, Lab
from colo_compare.demo.proxy_process import Table
from tests.e2e.shop import PAGE
from tests.e2e.traffic import ask

OBSERVE: dict[str, Table] = {
    "proxy": {"mode": "observe"},
    "checkpointer": {"backend": "null", "assume_deterministic": True},
}
DURATION = "6s"
PORT = 8080
PATIENCE = 5.0

Work = Callable[[Lab], None]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        lab.start(OBSERVE)
        yield lab


@contextmanager
def working(lab: Lab, work: Work, pause: float) -> Iterator[None]:
    """Let a client do something again and again."""
    over = threading.Event()

    def do() -> None:
        while not over.wait(pause):
            work(lab)

    worker = threading.Thread(target=do)
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()


def open_shops(lab: Lab, *options: str) -> None:
    for guest in lab.guests:
        argv = [sys.executable, "-m", "tests.e2e.shop", str(PORT), *options]
        process = guest.namespace.start(argv, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"


def command(lab: Lab, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the proxy's."""
    whole = [sys.executable, "-m", "colo_compare", *argv, "--socket", str(lab.directory / "control.sock")]
    return subprocess.run(whole, capture_output=True, text=True, check=False)


def suitability(lab: Lab, *options: str) -> tuple[int, dict[str, Any]]:
    """Run the command; gives its exit code and what it prints as JSON."""
    done = command(lab, "suitability", "--json", "--duration", DURATION, *options)
    assert done.stdout, done.stderr
    verdict: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, verdict


def service(verdict: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in verdict["survey"]["services"] if one["name"] == name]
    assert isinstance(found, dict)
    return found


def test_what_both_say_alike_suits(lab: Lab) -> None:
    with ExitStack() as stack:
        connection = stack.enter_context(Connection(lab.client, GUEST4))

        def work(lab: Lab) -> None:
            connection.download(20_000)
            ask(lab, GUEST4, DNS_PORT, [b"question"])

        stack.enter_context(working(lab, work, 0.02))
        code, verdict = suitability(lab)
    assert verdict["rates"] == {"per_minute": 0.0, "per_thousand": 0.0, "standing_still": 0.0}
    assert verdict["survey"]["divergences"] == 0
    # A secondary that gets no processor is late: then it is told so.
    assert (code, verdict["grade"]) == (0, "suits") or "late" in " ".join(verdict["reasons"])
    web, names = service(verdict, "tcp 80"), service(verdict, "udp 53")
    assert web["requests"] >= 20
    assert abs(web["requests"] - names["requests"]) <= 2
    assert web["primary_bytes"] > 20_000 * (web["requests"] - 2)
    assert verdict["survey"]["seconds"] == pytest.approx(6.0, abs=1.0)


def test_random_sessions_do_not_and_it_comes_true(lab: Lab, tmp_path: Path) -> None:
    open_shops(lab, "--session")
    page = tmp_path / "verdict.html"
    with shopping(lab) as work, working(lab, work, 0.02):
        code, verdict = suitability(lab, "--html", str(page))
    asked = asked_in_protect_mode(lab, requests=40)
    assert (code, verdict["grade"]) == (1, "does_not")
    (pattern,) = verdict["survey"]["patterns"]
    assert (pattern["service"], pattern["cause"]) == ("tcp 8080", "random")
    assert pattern["field"] == "Set-Cookie"
    assert verdict["rates"]["per_thousand"] == pytest.approx(1000 * asked / 40, rel=0.1)
    assert verdict["rates"]["standing_still"] > 0.1
    assert any("Set-Cookie" in line for line in verdict["advice"])
    assert verdict["survey"]["flows"][0]["fields"] == ["Set-Cookie"]
    text = page.read_text()
    assert "DOES NOT SUIT COLO" in text
    assert text.count("<svg") == 3


@contextmanager
def shopping(lab: Lab) -> Iterator[Work]:
    """Open a connection to the shops, and give what buys something."""
    browser = lab.client.call(HTTPConnection, GUEST4, PORT, timeout=PATIENCE)

    def work(lab: Lab) -> None:
        lab.client.call(browser.request, "GET", "/")
        assert lab.client.call(browser.getresponse).read() == PAGE

    try:
        yield work
    finally:
        browser.close()


def asked_in_protect_mode(lab: Lab, requests: int) -> int:
    """Protect, and count the checkpoints that so many requests ask for."""
    assert command(lab, "set", "mode", "protect").returncode == 0
    with shopping(lab) as work:
        for _ in range(requests):
            work(lab)
    asked: int = lab.proxy.status()["counters"]["requests"]["payload"]
    return asked


def make_certificate(directory: Path) -> Path:
    """Make a key with a certificate for it; gives the file that has both."""
    both, key, certificate = [directory / name for name in ("both.pem", "key.pem", "certificate.pem")]
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "2", "-subj", "/CN=guest", "-keyout", str(key), "-out", str(certificate)),
        ],
        capture_output=True,
        check=True,
    )
    both.write_text(key.read_text() + certificate.read_text())
    return both


def test_a_handshake_of_tls_is_one_checkpoint_and_the_rest_are_echoes(lab: Lab, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    open_shops(lab, "--tls", str(certificate))
    context = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
    context.check_hostname = False
    connections = 0

    def work(lab: Lab) -> None:
        nonlocal connections
        browser = lab.client.call(HTTPSConnection, GUEST4, PORT, timeout=PATIENCE, context=context)
        for _ in range(3):
            lab.client.call(browser.request, "GET", "/")
            assert lab.client.call(browser.getresponse).read() == PAGE
        browser.close()
        connections += 1

    with working(lab, work, 0.2):
        _, verdict = suitability(lab)
    survey = verdict["survey"]
    first = survey["patterns"][0]
    assert first["text"].startswith("a TLS handshake")
    assert 0.3 * connections <= first["divergences"] <= connections
    assert sum(pattern["divergences"] for pattern in survey["patterns"]) <= connections + 1
    assert survey["echoes"] > 0
    assert "end TLS before the guest" in verdict["advice"][0]


def test_only_where_it_observes(lab: Lab) -> None:
    assert command(lab, "set", "mode", "bypass").returncode == 0
    done = command(lab, "suitability")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the mode is bypass" in done.stderr
    assert "colo-compare set mode observe" in done.stderr
