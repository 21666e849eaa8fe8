import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_compare.checkpoint.qmp_protocol import (
    LONGEST_LINE,
    Greeting,
    MonitorEvent,
    MonitorProtocol,
    Reply,
)
from colo_compare.errors import MonitorError

# As QEMU 7.2 says it.
GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, '
    b'"capabilities": ["oob"]}}\r\n'
)
EVENT = b'{"timestamp": {"seconds": 1795546706, "microseconds": 547632}, "event": "STOP"}\r\n'
EXIT = (
    b'{"timestamp": {"seconds": 1795546707, "microseconds": 0}, "event": "COLO_EXIT", '
    b'"data": {"mode": "primary", "reason": "error"}}\r\n'
)
RETURN = b'{"return": {"status": "running"}, "id": 3}\r\n'
ERROR = b'{"error": {"class": "GenericError", "desc": "No such thing"}, "id": 4}\r\n'
UNREADABLE = b'{"error": {"class": "GenericError", "desc": "JSON parse error"}}\r\n'
CONVERSATION = GREETING + EVENT + RETURN + ERROR + b"\r\n" + EXIT + UNREADABLE
MEANING = [
    Greeting((7, 2, 22), "Debian", ("oob",)),
    MonitorEvent("STOP", {}, 1795546706.547632),
    Reply(3, {"status": "running"}, ""),
    Reply(4, None, "No such thing"),
    MonitorEvent("COLO_EXIT", {"mode": "primary", "reason": "error"}, 1795546707.0),
    Reply(None, None, "JSON parse error"),
]


def test_every_message_is_understood() -> None:
    assert MonitorProtocol().receive(CONVERSATION) == MEANING


@given(st.lists(st.integers(1, len(CONVERSATION) - 1), max_size=20))
def test_whatever_the_portions(cuts: list[int]) -> None:
    protocol = MonitorProtocol()
    edges = [0, *sorted(cuts), len(CONVERSATION)]
    messages = []
    for start, end in pairwise(edges):
        messages += protocol.receive(CONVERSATION[start:end])
    assert messages == MEANING


def test_commands_have_ids_of_their_own() -> None:
    protocol = MonitorProtocol()
    first, said = protocol.command("stop")
    assert json.loads(said) == {"execute": "stop", "id": first}
    assert said.endswith(b"}\n")
    second, said = protocol.command("migrate", {"uri": "unix:m"}, out_of_band=True)
    assert json.loads(said) == {"exec-oob": "migrate", "id": second, "arguments": {"uri": "unix:m"}}
    assert first != second


@pytest.mark.parametrize(
    "line",
    [b"QEMU 7.2.22 monitor - type 'help'", b"{}", b"[]", b"3", b'{"event": "STOP"}', b'{"QMP": {}}', b"\xff"],
)
def test_what_is_no_monitor_is_told_from_one(line: bytes) -> None:
    with pytest.raises(MonitorError, match="no monitor"):
        MonitorProtocol().receive(line + b"\n")


def test_a_line_without_an_end_is_given_up() -> None:
    protocol = MonitorProtocol()
    assert protocol.receive(b" " * LONGEST_LINE) == []
    with pytest.raises(MonitorError, match="more than 16 MiB"):
        protocol.receive(b" ")
