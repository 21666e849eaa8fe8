"""UDP, ICMP and fragments."""

from collections.abc import Callable

import pytest

from colo_compare.demo.guest import DNS_PORT, ECHO_PORT, dns_answer
from colo_compare.demo.lab import GUEST4, GUEST6, Lab, Wiring
from tests.e2e.traffic import ask, ping
from tests.e2e.verdict import assert_quiet

HOSTS = pytest.mark.parametrize("host", [GUEST4, GUEST6])


@HOSTS
def test_udp_echo(pair: Callable[..., Lab], host: str) -> None:
    lab = pair()
    questions = [b"%d" % n * 10 for n in range(200)]

    assert ask(lab, host, ECHO_PORT, questions) == questions

    assert_quiet(lab, compared=sum(map(len, questions)))


@HOSTS
def test_questions_with_longer_answers(pair: Callable[..., Lab], host: str) -> None:
    lab = pair()
    questions = [n.to_bytes(2, "big") + b"name.example" for n in range(100)]

    answers = [ask(lab, host, DNS_PORT, [question])[0] for question in questions]

    assert answers == [dns_answer(question) for question in questions]
    assert_quiet(lab, compared=sum(map(len, answers)))


@HOSTS
def test_a_port_where_nobody_listens(pair: Callable[..., Lab], host: str) -> None:
    lab = pair()

    for _ in range(3):  # fewer than the kernel's limit of ICMP errors at a time
        with pytest.raises(ConnectionRefusedError):
            ask(lab, host, 4, [b"anyone?"])

    assert_quiet(lab, compared=3 * len(b"anyone?"))


@HOSTS
def test_ping(pair: Callable[..., Lab], host: str) -> None:
    lab = pair()
    payloads = [bytes(range(n)) for n in (0, 1, 8, 56, 255)]

    assert ping(lab, host, payloads) == payloads

    assert_quiet(lab, compared=sum(map(len, payloads)))


@HOSTS
@pytest.mark.parametrize(
    "wiring", [Wiring(), Wiring(offloads=False), Wiring(taps=True)], ids=["packet", "plain", "tap"]
)
def test_datagrams_larger_than_the_mtu(pair: Callable[..., Lab], host: str, wiring: Wiring) -> None:
    lab = pair(wiring)
    questions = [bytes([n]) * size for n, size in enumerate((1473, 3000, 8000, 20000, 60000))]

    assert ask(lab, host, ECHO_PORT, questions) == questions
    assert ping(lab, host, questions[:3]) == questions[:3]

    assert_quiet(lab, compared=sum(map(len, questions)))
