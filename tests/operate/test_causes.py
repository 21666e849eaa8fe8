import struct

import pytest

from colo_compare.core.counters import HANDSHAKE, PAYLOAD, RESET, STREAM_END, TIMEOUT, UNKNOWN_FLOW
from colo_compare.operate import causes
from colo_compare.operate.causes import find_cause

NOW = 1_795_554_092.0  # Tue, 24 Nov 2026 21:01:32 GMT


def cause_of(ours: bytes, theirs: bytes) -> causes.Cause:
    """What is said of two messages, from the first byte that differs on."""
    at = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
    return find_cause(PAYLOAD, ours[:at], ours[at:], theirs[at:], NOW, is_start=True)


@pytest.mark.parametrize(
    ("ours", "theirs", "field"),
    [
        (
            b"HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 21:01:32 GMT\r\nServer: x\r\n",
            b"HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 21:01:33 GMT\r\nServer: x\r\n",
            "Date",
        ),
        (b"at 2026-11-24T21:01:32.123456Z, ok", b"at 2026-11-24T21:01:32.123999Z, ok", ""),
        (b"[24/Nov/2026:21:01:32 +0000]", b"[24/Nov/2026:21:01:33 +0000]", ""),
        (b"Nov 24 21:01:32 host", b"Nov 24 21:01:33 host", ""),
        (b"it is 21:01:32 now", b"it is 21:01:33 now", ""),
        (b'{"id": 7, "time": 1795554092.25}', b'{"id": 7, "time": 1795554092.31}', "time"),
        (b"t=1795554092123;", b"t=1795554092125;", "t"),
        (struct.pack(">4sQ", b"head", 1795554092123456), struct.pack(">4sQ", b"head", 1795554092123999), ""),
        (struct.pack("<4sI", b"head", 1795554092), struct.pack("<4sI", b"head", 1795554093), ""),
        (
            struct.pack(">4sII", b"\x24\x01\x06\xec", 1795554092 + 2208988800, 0x12345678),
            struct.pack(">4sII", b"\x24\x01\x06\xec", 1795554092 + 2208988800, 0x22345678),
            "",
        ),
    ],
)  # fmt: skip
def test_clocks(ours: bytes, theirs: bytes, field: str) -> None:
    cause = cause_of(ours, theirs)
    assert (cause.kind, cause.field) == (causes.TIMESTAMP, field)


@pytest.mark.parametrize(
    ("ours", "theirs", "kind", "field"),
    [
        (b"requests: 41\n", b"requests: 42\n", causes.NUMBER, "requests"),
        (b"load 9.51 x", b"load 10.02 x", causes.NUMBER, ""),
        (
            b"Set-Cookie: session=8f14e45fceea167a5a36dedd4bea2543; path=/",
            b"Set-Cookie: session=c9f0f895fb98ab9159f51fd0297e236d; path=/",
            causes.RANDOM,
            "Set-Cookie",
        ),
        (b"key " + bytes(range(130, 162)), b"key " + bytes(range(40, 72)), causes.RANDOM, ""),
        (
            b"\x16\x03\x03\x00\x7a\x02" + bytes(90),
            b"\x16\x03\x03\x00\x7a\x02" + b"\1" * 90,
            causes.RANDOM,
            "",
        ),
        (
            b"alpha beta gamma delta;omega psi chi phi upsilon;",
            b"omega psi chi phi upsilon;alpha beta gamma delta;",
            causes.ORDER,
            "",
        ),
        (b"Hello world, how are you today?", b"Hello dear world, how are you today?", causes.LENGTH, ""),
        (b"Hello my dear world, how are you?", b"Hello world, how are you?", causes.LENGTH, ""),
        (b"the cat sat on the mat and slept", b"the dog sat on the mat and slept", causes.CONTENT, ""),
        (b"yes", b"no!", causes.CONTENT, ""),
        (b"name=anna and nothing else here", b"name=otto and nothing else here", causes.CONTENT, "name"),
    ],
)
def test_what_else_differs(ours: bytes, theirs: bytes, kind: str, field: str) -> None:
    cause = cause_of(ours, theirs)
    assert (cause.kind, cause.field) == (kind, field)
    assert cause.text


def test_a_longer_side_is_named() -> None:
    assert (
        cause_of(b"Hello my dear world, how are you?", b"Hello world, how are you?").text
        == "the primary said 8 bytes more there, then both go on alike"
    )


def test_one_side_alone() -> None:
    assert find_cause(PAYLOAD, b"x", b"", b"more", NOW).text == "the primary said nothing there"
    assert find_cause(PAYLOAD, b"x", b"more", b"", NOW).text == "the secondary said nothing there"
    assert find_cause(TIMEOUT, b"", b"late", b"", NOW).kind == causes.ONE_SIDE


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (STREAM_END, causes.ENDING),
        (RESET, causes.ENDING),
        (HANDSHAKE, causes.OPTIONS),
        (UNKNOWN_FLOW, causes.MID_STREAM),
        ("a reason to come", causes.CONTENT),
    ],
)
def test_reasons_that_say_it_all(reason: str, kind: str) -> None:
    assert find_cause(reason, b"", b"", b"", NOW).kind == kind


def test_no_text_quotes_what_was_said() -> None:
    for ours, theirs in ((b"secret-one", b"secret-two"), (b"pin 1234", b"pin 5678")):
        cause = cause_of(ours, theirs)
        assert not any(word in cause.text for word in ("secret", "pin", "1234", "one", "two"))
