"""The command line."""

import pytest

from colo_compare.guest import Geometry, Identity, Noise
from colo_compare.guest.options import Options, parse


def test_little_must_be_said() -> None:
    assert parse(["--tap", "tap0"]) == Options(
        "tap:tap0?vnet_hdr=no", "", False, "", Identity(), Geometry(), Noise()
    )


def test_everything_can_be_said() -> None:
    line = (
        "--port memory:x --memory 5 --control /run/guest.sock --commands --mac 02:00:00:00:00:09"
        " --address4 192.0.2.2/25 --address6 2001:db8::2/48 --gateway4 192.0.2.1 --gateway6 2001:db8::1"
        " --mtu 1400 --secret s --connections 10 --send-buffer 64 --receive-buffer 32 --entries 7 --value 8"
        " --noise-seed 4 --random-every 10 --random-isn --clock-jitter 2ms"
    )
    identity = Identity(
        "02:00:00:00:00:09", "192.0.2.2/25", "2001:db8::2/48", "192.0.2.1", "2001:db8::1", 1400, "s"
    )
    geometry = Geometry(10, 65536, 32768, 7, 8192)
    noise = Noise(4, 10, True, 0.002)
    assert parse(line.split()) == Options("memory:x", "5", True, "/run/guest.sock", identity, geometry, noise)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "one of the arguments --tap --port is required"),
        ("--tap a --port memory:x", "not allowed"),
        ("--port nonsense", "nonsense"),
        ("--tap a --connections 0", "1 to 4,096 connections"),
        ("--tap a --send-buffer 3", "whole pages"),
        ("--tap a --clock-jitter soon", "soon"),
    ],
)
def test_mistakes_are_explained(line: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(line.split())
    assert complaint in capsys.readouterr().err
