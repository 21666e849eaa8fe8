"""The second act: the guests differ, and the client does not see it before the checkpoint."""

import json
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from colo_compare.demo.checkpoint_desk import CheckpointDesk
from colo_compare.demo.client import Connection
from colo_compare.demo.guest import signed
from colo_compare.demo.lab import GUEST4, Lab
from colo_compare.demo.screen import Screen
from colo_compare.errors import CaptureError

SIZE: Final = 64 << 10  # bytes of the answer; the guests differ in the middle
LIMIT: Final = 5.0  # seconds until the divergence must be found
QUIET: Final = 0.5  # seconds without a byte, after which none is on its way
SHOWN: Final = 24  # bytes of each side


def show_divergence(screen: Screen) -> None:
    """Let the guests answer differently, look at what the client has, then make the checkpoint."""
    screen.title("2. A divergence is held back")
    with Lab() as lab, CheckpointDesk(lab.directory / "desk.sock") as desk:
        captures = {side: lab.directory / f"{side}.pcapng" for side in ("primary", "secondary")}
        lab.start(
            {
                "proxy": {"mode": "protect"},
                "ports": lab.ports(**{side: f"trace={path}" for side, path in captures.items()}),
                # It copies what makes these guests differ, and nothing of their TCP.
                "checkpointer": {"backend": "command", "checkpoint": desk.command(), "copies_state": False},
            }
        )
        desk.next(LIMIT)  # protection begins with a checkpoint; these guests are equal from the start
        desk.commit()
        with Connection(lab.client, GUEST4) as connection:
            _diverge(screen, lab, desk, connection.socket)
            before = lab.proxy.status()["counters"]["requests"]
            answer = connection.request(f"/whoami/{SIZE}").read()
            screen.check("asked again", "equal, no checkpoint", answer == b"".join(signed(SIZE, "A")))
            after = lab.proxy.status()["counters"]["requests"]
            screen.check("checkpoints", _requests(after), before == after)
            lab.proxy.stop()  # while nobody has anything to say: the captures end at the same point
        _report(screen, captures)


def _diverge(screen: Screen, lab: Lab, desk: CheckpointDesk, connection: socket.socket) -> None:
    """Ask for what the guests answer differently, and give the checkpoint only after a look at the client."""
    screen.say(f"The client asks for {SIZE} bytes in whose middle each guest says who it is.")
    connection.sendall(f"GET /whoami/{SIZE} HTTP/1.1\r\nHost: {GUEST4}\r\n\r\n".encode())
    request = desk.next(LIMIT)
    before = _receive_until_quiet(connection)
    screen.say("They differ. The checkpointer is told:")
    for key, value in request.items():
        screen.show(f"  {key:<8}{', '.join(value) if isinstance(value, list) else value}")
    screen.say(
        f"Meanwhile the client has {len(before)} bytes and waits. No byte that differs has reached it."
    )
    head = before.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    expected = head + b"".join(signed(SIZE, "A"))
    differs = len(head) + SIZE // 2
    screen.check("checkpoint for", ", ".join(request["reasons"]), request["reasons"] == ["payload"])
    screen.check(
        "client before",
        f"{len(before)} bytes; the guests differ from {differs} on",
        0 < len(before) <= differs and expected.startswith(before),
    )
    lab.guests[1].command(identity="A")
    desk.commit()
    after = b""
    while len(before + after) < len(expected) and (chunk := connection.recv(SIZE)):
        after += chunk
    screen.say(
        f"The checkpoint is made: guest B is what guest A was. {len(after)} bytes more reach the client."
    )
    screen.check("client after", "the primary's answer, whole", before + after == expected)


def _receive_until_quiet(connection: socket.socket) -> bytes:
    patience = connection.gettimeout()
    connection.settimeout(QUIET)
    received = b""
    with suppress(TimeoutError):
        while chunk := connection.recv(SIZE):
            received += chunk
    connection.settimeout(patience)
    return received


def _report(screen: Screen, captures: dict[str, Path]) -> None:
    """Let `colo-compare replay` say where the captures of the two guests differ."""
    screen.say("`colo-compare replay` reports, from captures of what each guest sent:")
    argv = [sys.executable, "-m", "colo_compare", "replay", "--json"]
    for side, path in captures.items():
        argv += [f"--{side}", str(path)]
    replay = subprocess.run(argv, capture_output=True, check=False)
    if not replay.stdout:
        raise CaptureError(replay.stderr.decode().strip())
    divergences: list[dict[str, Any]] = json.loads(replay.stdout)["divergences"]
    for divergence in divergences:
        screen.show(f"{divergence['reason']} of {divergence['flow']}, offset {divergence['offset']}:")
        for side in captures:
            data = bytes.fromhex(divergence[side])[:SHOWN]
            screen.show(f"  {side:<10}{data.decode('ascii', 'replace')}")
    said = [bytes.fromhex(divergence["primary"])[:1] for divergence in divergences]
    screen.check("in the captures", f"divergences: {len(divergences)}", said == [b"A"])


def _requests(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
