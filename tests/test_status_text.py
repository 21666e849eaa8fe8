from typing import Any

from colo_compare.core.counters import Counters
from colo_compare.status_text import render

LAST = {
    "seconds_ago": 7.04,
    "epoch": 3,
    "reasons": ["payload", "timeout"],
    "request_to_commit": 0.0125,
    "released": 4,
    "discarded": 5,
}


def port(**values: Any) -> dict[str, Any]:
    numbers = ["backlog", "dropped", "received_frames", "received_bytes", "sent_frames", "sent_bytes"]
    numbers += ["dropped_receive", "dropped_send", "resets"]
    made = dict.fromkeys(numbers, 0) | {"connected": True, "failure": "", "held_back": False}
    return {**made, **values}


def status(**values: Any) -> dict[str, Any]:
    counters = Counters()
    counters.requests["startup"] = 1
    counters.released["matched"] = 12
    made = {
        "version": "1.2.3",
        "compiled": True,
        "uptime": 61.4,
        "mode": "protect",
        "protected": True,
        "why": "",
        "stopping": False,
        "draining": False,
        "epoch": 3,
        "checkpoint": {"state": "comparing", "last": LAST, "figures": {"pause": 0.004}},
        "held": {"frames": 2, "bytes": 128, "oldest": 0.0125, "client_frames": 0},
        "flows": {"established": 5, "closed": 0},
        "promoted": "",
        "joining": {},
        "ports": {
            "client": port(url="packet:eth0", role="client", received_frames=7, sent_frames=8),
            "primary": port(url="packet:tap-pri", role="primary"),
        },
        "checkpointer": {"backend": "command", "ready": True, "ended": "", "figures": {"committed": 3}},
        "counters": counters.snapshot(),
        "events": [],
    }
    return {**made, **values}


def test_the_verdict_comes_first() -> None:
    assert render(status()).splitlines()[0] == "PROTECTED"
    text = render(status(protected=False, why="the secondary is lost", stopping=True))
    assert text.splitlines()[0] == "UNPROTECTED: the secondary is lost, stopping"
    assert render(status(draining=True)).splitlines()[0] == "PROTECTED, draining"


def test_before_the_first_checkpoint() -> None:
    text = render(status(checkpoint={"state": "requested", "last": {}, "figures": {}}))
    assert "last          no checkpoint yet\n" in text


def test_each_part_has_its_line() -> None:
    assert render(status()).splitlines()[1:] == [
        "mode          protect, up 61 s, version 1.2.3 (compiled)",
        "epoch         3, comparing",
        "last          payload, timeout, committed 7.0 s ago in 12.5 ms, released 4; pause 0.004",
        "checkpoints   committed 0, failed 0, timed_out 0",
        "requests      startup 1",
        "divergences   none",
        "held          2 frames, 128 bytes, up to 0.013 s",
        "released      matched 12",
        "flows         established 5",
        "checkpointer  command, ready, committed 3",
        "client        packet:eth0 as client, connected, in 7, out 8",
        "primary       packet:tap-pri as primary, connected, in 0, out 0",
    ]


def test_what_is_wrong_is_shown() -> None:
    lost = port(
        url="tap:x", role="lost", connected=False, failure="link down", dropped=3, backlog=2, held_back=True
    )
    text = render(
        status(
            promoted="the primary is lost",
            ports={"primary": lost},
            checkpointer={"backend": "command", "ready": False, "ended": "connection lost", "figures": {}},
        )
    )
    assert "checkpointer  command, ended: connection lost\n" in text
    assert "promoted      the primary is lost\n" in text
    assert text.splitlines()[-1] == (
        "primary       tap:x as lost, not connected, in 0, out 0, "
        "backlog 2, dropped 3, held back, lost: link down"
    )


def test_a_backend_that_is_not_ready() -> None:
    text = render(status(checkpointer={"backend": "qemu", "ready": False, "ended": "", "figures": {}}))
    assert "checkpointer  qemu, not ready\n" in text
