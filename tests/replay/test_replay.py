import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dpkt
import pytest

from colo_compare.errors import CaptureError
from tests.conversation import Conversation
from tests.replay.conftest import Pair

Replay = Callable[..., tuple[int, str]]

BODY = bytes(range(256)) * 20


def exchange(pair: Pair, talk: Conversation, primary: bytes, secondary: bytes, wait: float = 0.0) -> None:
    """A request, and each guest's answer in segments of its own size; the secondary's comes `wait` later."""
    pair.pass_by(talk.client.data(b"GET / HTTP/1.1\r\n\r\n"))
    for at in range(0, len(primary), 1000):
        pair.pass_by(talk.primary.data(primary[at : at + 1000]))
    pair.after(wait)
    for at in range(0, len(secondary), 700):
        pair.pass_by(talk.secondary.data(secondary[at : at + 700]))
    pair.pass_by(talk.client.ack())


def report(replay: Replay, *options: str) -> dict[str, Any]:
    code, out = replay("--json", *options)
    verdict: dict[str, Any] = json.loads(out)
    assert code == (0 if verdict["equal"] else 1)
    return verdict


def test_the_same_bytes_in_other_segments_are_equal(pair: Pair, replay: Replay) -> None:
    exchange(pair, pair.connection(), BODY, BODY)
    verdict = report(replay)
    assert verdict["equal"] is True
    assert verdict["flows"] == 1
    assert verdict["bytes_compared"] == len(BODY)
    assert verdict["divergences"] == []
    assert verdict["checkpoints"] == {}


def test_numbers_and_clocks_of_their_own_do_not_matter(pair: Pair, replay: Replay) -> None:
    pair.skew = -4000.0
    exchange(pair, pair.connection(primary_isn=0xFFFFFF00, secondary_isn=1, version=6), BODY, BODY)
    assert report(replay)["equal"] is True


def test_a_different_byte_is_shown_with_its_place(pair: Pair, replay: Replay) -> None:
    other = bytearray(BODY)
    other[3000] ^= 0xFF
    exchange(pair, pair.connection(), BODY, bytes(other))
    verdict = report(replay)
    assert verdict["equal"] is False
    assert verdict["checkpoints"] == {"payload": 1}
    (divergence,) = verdict["divergences"]
    assert divergence["reason"] == "payload"
    assert "10.0.0.2" in divergence["flow"]
    assert divergence["offset"] == 3000
    assert bytes.fromhex(divergence["primary"]) == BODY[3000 : 3000 + len(divergence["primary"]) // 2]
    assert bytes.fromhex(divergence["secondary"])[0] == BODY[3000] ^ 0xFF


def test_the_text_shows_both_sides(pair: Pair, replay: Replay) -> None:
    exchange(pair, pair.connection(), b"Hello from A", b"Hello from B")
    code, out = replay()
    assert code == 1
    assert "41" in out
    assert "42" in out
    assert "DIVERGED" in out
    assert "payload" in out
    assert max(map(len, out.splitlines())) <= 120


def test_a_flow_goes_on_after_a_divergence(pair: Pair, replay: Replay) -> None:
    talk = pair.connection()
    exchange(pair, talk, b"one A", b"one B")
    exchange(pair, talk, BODY, BODY)
    exchange(pair, talk, b"two A", b"two B")
    assert report(replay)["checkpoints"] == {"payload": 2}


def test_silence_of_the_secondary_is_a_divergence(pair: Pair, replay: Replay) -> None:
    talk = pair.connection()
    exchange(pair, talk, BODY, b"")
    assert list(report(replay)["checkpoints"]) == ["timeout"]


def test_how_long_frames_would_have_waited(pair: Pair, replay: Replay) -> None:
    talk = pair.connection()
    for wait in (0.001, 0.002, 0.5):
        exchange(pair, talk, b"answer", b"answer", wait)
    hold = report(replay)["hold_seconds"]
    assert hold["max"] == pytest.approx(0.5, abs=1e-5)
    assert hold["p50"] == pytest.approx(0.001, abs=1e-5)


def test_a_wait_beyond_the_timeout_asks_for_a_checkpoint(pair: Pair, replay: Replay) -> None:
    exchange(pair, pair.connection(), b"answer", b"answer", 0.5)
    assert report(replay)["equal"] is True
    assert report(replay, "--compare-timeout", "100ms")["checkpoints"] == {"timeout": 1}


def test_datagrams(pair: Pair, replay: Replay) -> None:
    talk = pair.talk()
    pair.pass_by(talk.client.datagram(b"?"), talk.primary.datagram(b"one"), talk.secondary.datagram(b"one"))
    pair.after(0.1)
    pair.pass_by(talk.client.datagram(b"?"), talk.primary.datagram(b"two"), talk.secondary.datagram(b"TWO"))
    verdict = report(replay, "--guest-mac", "02:50:00:00:00:02")
    assert verdict["equal"] is False
    assert len(verdict["divergences"]) == 1


def test_captures_of_the_output_alone(pair: Pair, replay: Replay) -> None:
    exchange(pair, pair.connection(), BODY, BODY)
    pair.primary_frames = [entry for entry in pair.primary_frames if entry not in pair.client_frames]
    pair.secondary_frames = [entry for entry in pair.secondary_frames if entry not in pair.client_frames]
    verdict = report(replay)
    assert verdict["equal"] is True
    assert verdict["bytes_compared"] == len(BODY)


def test_a_client_capture(pair: Pair, replay: Replay) -> None:
    exchange(pair, pair.connection(), BODY, BODY)
    assert report(replay, "--client", str(pair.client()))["equal"] is True


def test_connections_that_began_before_are_counted_and_not_compared(pair: Pair, replay: Replay) -> None:
    old = pair.connection(client_port=40001)
    pair.primary_frames, pair.secondary_frames = [], []
    exchange(pair, pair.connection(), BODY, BODY)
    exchange(pair, old, b"A", b"B")
    verdict = report(replay)
    assert verdict["equal"] is True
    assert verdict["unplaced"] == 1
    assert "1 frames of connections that began before" in replay()[1]


def test_with_nothing_to_compare_there_is_no_verdict(pair: Pair, replay: Replay) -> None:
    old = pair.connection()
    pair.primary_frames, pair.secondary_frames = [], []
    exchange(pair, old, BODY, BODY)
    with pytest.raises(CaptureError, match="start both before the connections"):
        replay("--guest-mac", "02:50:00:00:00:02")


def test_the_text_shows_the_first_divergences_and_counts_the_rest(pair: Pair, replay: Replay) -> None:
    talk = pair.connection()
    for _ in range(23):
        exchange(pair, talk, b"A", b"B")
    _, out = replay()
    assert "divergence 20 " in out
    assert "divergence 21 " not in out
    assert "and 3 more" in out
    assert "23 checkpoints would have been needed: 23 payload" in out


def test_clocks_days_apart_do_not_take_days(pair: Pair, replay: Replay) -> None:
    exchange(pair, pair.connection(), b"answer", b"answer")
    pair.skew = -1e6
    assert report(replay, "--align", "clock")["equal"] is False
    assert "clocks    taken as they are" in replay("--align", "clock")[1]


def test_a_file_that_is_no_capture(pair: Pair, replay: Replay, tmp_path: Path) -> None:
    exchange(pair, pair.connection(), BODY, BODY)
    broken = tmp_path / "broken.pcap"
    broken.write_bytes(b"this is no capture at all, but long enough")
    with pytest.raises(CaptureError, match=r"broken\.pcap") as failure:
        replay("--client", str(broken))
    assert "\n" not in str(failure.value)


def test_a_file_that_breaks_off(pair: Pair, replay: Replay, tmp_path: Path) -> None:
    exchange(pair, pair.connection(), BODY, BODY)
    broken = tmp_path / "broken.pcap"
    broken.write_bytes(pair.client().read_bytes()[:-7])
    verdict = report(replay, "--client", str(broken))
    assert verdict["equal"] is True
    assert len(verdict["notes"]) == 1
    assert "broken.pcap: ends in the middle of packet" in verdict["notes"][0]
    assert "note      " + verdict["notes"][0] in replay("--client", str(broken))[1]


def test_frames_that_were_cut_short(pair: Pair, replay: Replay, tmp_path: Path) -> None:
    exchange(pair, pair.connection(), BODY, BODY)
    cut = tmp_path / "cut.pcap"
    with cut.open("wb") as file:
        writer = dpkt.pcap.Writer(file, nano=True, snaplen=64)
        data = pair.client_frames[0][1]
        writer.writepkt_time(data, 1.0)
    raw = bytearray(cut.read_bytes())
    raw[36:40] = (len(data) + 1000).to_bytes(
        4, sys.byteorder
    )  # length on the wire, in the first packet header
    cut.write_bytes(raw)
    with pytest.raises(
        CaptureError, match=rf"cut\.pcap: packet 1 holds {len(data)} of its {len(data) + 1000} bytes"
    ):
        replay("--client", str(cut))


def test_a_file_that_is_not_there(pair: Pair, replay: Replay) -> None:
    exchange(pair, pair.connection(), BODY, BODY)
    with pytest.raises(CaptureError, match=r"/nowhere/at\.pcap"):
        replay("--client", "/nowhere/at.pcap")


@pytest.mark.parametrize(
    "options", [["--guest-mac", "52:54"], ["--compare-timeout", "3"], ["--align", "sideways"]]
)
def test_wrong_usage_ends_with_2(pair: Pair, replay: Replay, options: list[str]) -> None:
    pair.connection()
    with pytest.raises(SystemExit) as end:
        replay(*options)
    assert end.value.code == 2
