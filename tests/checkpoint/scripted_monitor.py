"""The other end of a monitor's socket, which says what a test lets it say."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

GREETING = {
    "QMP": {
        "version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""},
        "capabilities": ["oob"],
    }
}


class Peer:
    """One connection, as QEMU sees it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._rest = b""
        self._at = 0
        self._sending = trio.Lock()

    async def say(self, *messages: dict[str, Any]) -> None:
        """Send messages, all in one packet."""
        async with self._sending:
            await self.stream.send_all(
                b"".join(json.dumps(message).encode() + b"\r\n" for message in messages)
            )

    async def hear(self) -> dict[str, Any]:
        """Receive one command. Raises EndOfConversation."""
        while b"\n" not in self._rest:
            try:
                data = await self.stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                raise EndOfConversation
            self._rest += bytes(data)
        line, _, self._rest = self._rest.partition(b"\n")
        command: dict[str, Any] = json.loads(line)
        return command

    async def greet(self) -> dict[str, Any]:
        """Do what a monitor does first; gives the client's choice of capabilities."""
        await self.say(GREETING)
        command = await self.hear()
        await self.say({"return": {}, "id": command["id"]})
        return command

    def event(self, name: str, **data: Any) -> dict[str, Any]:
        """Give an event, each a second after the one before."""
        self._at += 1
        return {"event": name, "timestamp": {"seconds": self._at, "microseconds": 0}, "data": data}


class EndOfConversation(Exception):
    """The client has gone."""


async def serve(nursery: trio.Nursery, path: Path, script: Callable[[Peer], Awaitable[None]]) -> None:
    """Let a script talk to each client of a unix socket until the nursery is cancelled."""

    async def talk(stream: trio.SocketStream) -> None:
        try:
            await script(Peer(stream))
        except EndOfConversation:
            await stream.aclose()

    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen()
    nursery.start_soon(trio.serve_listeners, talk, [trio.SocketListener(listening)])
