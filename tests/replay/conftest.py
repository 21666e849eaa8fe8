"""Two guests that hear the same client, and captures of what passes the interface of each."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from colo_compare.ports.pcap import CaptureWriter
from colo_compare.replay import add_arguments
from colo_compare.replay import run as command
from tests.conversation import Clock, Conversation, Packet
from tests.frames import dissect

START = 1_700_000_000 * 10**9  # nanoseconds


class Pair:
    """Frames pass at `now`; `skew` is how much the clock at the secondary is ahead."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = Clock(0.0)
        self.skew = 0.0
        self.client_frames: list[tuple[float, bytes]] = []
        self.primary_frames: list[tuple[float, bytes]] = []
        self.secondary_frames: list[tuple[float, bytes]] = []

    def after(self, seconds: float) -> None:
        self.clock.now += seconds

    def talk(self, *, client_port: int = 40000, primary_isn: int = 10_000, secondary_isn: int = 50_000,
             version: int = 4) -> Conversation:  # fmt: skip
        """A flow in which nothing was said yet."""
        talk = Conversation(self.clock, client_port=client_port, version=version)
        talk.client.isn, talk.primary.isn, talk.secondary.isn = 100, primary_isn, secondary_isn
        talk.secondary.clock = 7_000_000
        talk.view_isn = primary_isn
        return talk

    def connection(self, **choices: int) -> Conversation:
        """A flow after its handshake."""
        talk = self.talk(**choices)
        self.pass_by(talk.client.syn())
        self.pass_by(talk.primary.syn_ack(), talk.secondary.syn_ack())
        self.pass_by(talk.client.ack())
        return talk

    def pass_by(self, *packets: Packet) -> None:
        """Packets reach their listeners now: the client's both guests, a guest's the client."""
        self.after(1e-5)
        for packet in packets:
            talk = packet.maker.conversation
            entry = (self.clock.now, packet.data)
            seen = dissect(packet.data)
            if packet.maker is talk.client:
                self.client_frames.append(entry)
                self.primary_frames.append(entry)
                self.secondary_frames.append(entry)
                talk.primary.hear(packet, seen)
                talk.secondary.hear(packet, seen)
            elif packet.maker is talk.primary:
                self.primary_frames.append(entry)
                talk.client.hear(packet, seen)
            else:
                self.secondary_frames.append(entry)

    def primary(self) -> Path:
        return self._write("primary.pcap", self.primary_frames, 0.0)

    def secondary(self) -> Path:
        return self._write("secondary.pcap", self.secondary_frames, self.skew)

    def client(self) -> Path:
        return self._write("client.pcap", self.client_frames, 0.0)

    def _write(self, name: str, frames: list[tuple[float, bytes]], skew: float) -> Path:
        path = self.directory / name
        with CaptureWriter(path, ["tap"]) as writer:
            for at, data in frames:
                writer.write("tap", START + round((skew + at) * 1e9), data)
        return path


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


@pytest.fixture
def replay(pair: Pair, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run the command on the pair's captures; gives its exit code and what it printed."""

    def run(*options: str) -> tuple[int, str]:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        captures = ["--primary", str(pair.primary()), "--secondary", str(pair.secondary())]
        code = command(parser.parse_args([*captures, *options]))
        return code, capsys.readouterr().out

    return run
