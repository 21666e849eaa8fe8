import pytest

from colo_compare.checkpoint.qmp_address import MonitorAddress


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/a.qmp", MonitorAddress("unix", path="/run/a.qmp")),
        ("unix:a:b", MonitorAddress("unix", path="a:b")),
        ("tcp:192.0.2.7:4444", MonitorAddress("tcp", host="192.0.2.7", port=4444)),
        ("tcp:host.example:1", MonitorAddress("tcp", host="host.example", port=1)),
        ("tls:[2001:db8::7]:65535", MonitorAddress("tls", host="2001:db8::7", port=65535)),
    ],
)
def test_an_address_reads_back(text: str, address: MonitorAddress) -> None:
    assert MonitorAddress.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unix:",
        "/run/a.qmp",
        "tcp:host",
        "tcp:host:0",
        "tcp:host:65536",
        "tcp::4444",
        "tcp:a:b:4",
        "udp:a:4",
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f'^"{text}" is no address of a monitor: write unix:PATH'):
        MonitorAddress.parse(text)
