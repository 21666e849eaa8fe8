import re
from collections.abc import Callable

import pytest

from colo_compare.config import Config
from colo_compare.errors import ConfigError

Load = Callable[..., Config]


@pytest.mark.parametrize(
    "key",
    [
        "compare_timeout",
        "mirror_retry",
        "max_interval",
        "checkpoint_timeout",
        "retry_interval",
        "idle_timeout",
        "half_open_timeout",
        "closed_timeout",
        "datagram_idle_timeout",
        "fragment_timeout",
    ],
)
def test_some_durations_cannot_be_zero(pair: Load, key: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"$.proxy.{key}: must be longer than 0s")):
        pair(f'[proxy]\n{key} = "0ms"\n')


def test_others_can(pair: Load) -> None:
    config = pair('[proxy]\ncoalesce = "0s"\nmin_interval = "0s"\ndatagram_window = "0s"\n')
    assert config.proxy.datagram_window == 0.0


@pytest.mark.parametrize("key", ["max_held_bytes", "max_flow_bytes"])
def test_a_queue_holds_at_least_one_large_frame(pair: Load, key: str) -> None:
    with pytest.raises(
        ConfigError, match=re.escape(f"$.proxy.{key}: 64KiB cannot hold a frame of 64KiB: give at")
    ):
        pair(f'[proxy]\n{key} = "64KiB"\n')
    assert getattr(pair(f'[proxy]\n{key} = "128KiB"\n').proxy, key) == 128 << 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'min_interval = "3s"\nmax_interval = "2s"',
            "$.proxy.min_interval: 3s is longer than max_interval, 2s",
        ),
        ('datagram_window = "3s"', "$.proxy.datagram_window: 3s is not shorter than compare_timeout, 3s"),
        ("max_half_open = 20\nmax_flows = 10", "$.proxy.max_half_open: 20 is more than max_flows, 10"),
        ("mirror = false", "$.proxy.rewrite: true needs mirror = true"),
    ],
)
def test_pairs_of_settings_that_contradict_each_other(pair: Load, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        pair(f"[proxy]\n{text}\n")


@pytest.mark.parametrize(
    "text",
    [
        'min_interval = "2s"\nmax_interval = "2s"',
        'min_interval = "2s"\nmax_interval = "off"',
        "mirror = false\nrewrite = false",  # QEMU's filters do both
        "mirror = true\nrewrite = false",  # QEMU's filter-rewriter, in the secondary
        'mode = "observe"\non_secondary_loss = "block"',  # counts again once an operator protects
    ],
)
def test_pairs_of_settings_that_make_sense(pair: Load, text: str) -> None:
    assert pair(f"[proxy]\n{text}\n").checkpointer.backend == "command"


@pytest.mark.parametrize(
    ("ports", "message"),
    [
        (
            ("eth0", "packet:b", "packet:c"),
            '$.ports.client: "eth0" is no port URL: it must begin with packet:',
        ),
        (("packet:a", "tap:", "packet:c"), "$.ports.primary: the name of the interface is missing"),
        (("packet:a", "packet:b", "packet:a"), "$.ports.secondary: interface a is the client port already"),
        (
            ("packet:a", "packet:b", "packet:b?vnet_hdr=no"),
            "$.ports.secondary: interface b is the primary port",
        ),
        (("packet:a", "tap:a", "packet:b"), "$.ports.primary: interface a is the client port already"),
        (
            ("stream+unix:///s", "dgram+unix:///s?peer=/t", "tap:c"),
            "$.ports.primary: socket /s is the client port",
        ),
        (("pcap:f", "pcap:g", "pcap:g?mode=write"), "$.ports.secondary: file g is the primary port already"),
        (("memory:f", "memory:g", "memory:g"), "$.ports.secondary: memory g is the primary port already"),
    ],
)
def test_ports_that_are_none_or_not_three(load: Load, ports: tuple[str, str, str], message: str) -> None:
    client, primary, secondary = ports
    with pytest.raises(ConfigError, match=re.escape(message)):
        load(f'[ports]\nclient = "{client}"\nprimary = "{primary}"\nsecondary = "{secondary}"\n')


@pytest.mark.parametrize("mode", ["0600", "660", "1777"])
def test_a_file_mode_is_octal(pair: Load, mode: str) -> None:
    assert pair(COLO_COMPARE_CONTROL__MODE=mode).control.file_mode == int(mode, 8)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODE", "0o600", '$.control.mode: "0o600" is no file mode: write octal digits, like "0600"'),
        ("MODE", "680", '$.control.mode: "680" is no file mode'),
        ("MODE", "", '$.control.mode: "" is no file mode'),
        ("SOCKET", "colo.sock", '$.control.socket: "colo.sock" must be an absolute path, or "off"'),
        ("SOCKET", "/" + 107 * "x", "$.control.socket: is longer than 107 bytes, a unix socket's limit"),
    ],
)
def test_a_control_socket_that_cannot_be(pair: Load, key: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        pair(**{f"COLO_COMPARE_CONTROL__{key}": value})


@pytest.mark.parametrize("listen", ["off", "127.0.0.1:9464", "[::1]:80"])
def test_where_http_can_be_served(pair: Load, listen: str) -> None:
    assert pair(COLO_COMPARE_HTTP__LISTEN=listen).http.listen == listen


def test_where_http_cannot_be_served(pair: Load) -> None:
    with pytest.raises(ConfigError, match=re.escape('$.http.listen: "9464" has no port')):
        pair(COLO_COMPARE_HTTP__LISTEN="9464")


def test_the_control_socket_can_be_off(pair: Load) -> None:
    assert pair(COLO_COMPARE_CONTROL__SOCKET="off").control.socket == "off"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("DIRECTORY", "captures", '$.capture.directory: "captures" must be an absolute path, or "off"'),
        ("RING", "64KiB", "$.capture.ring: 64KiB cannot hold a frame of 64KiB: give at least 128KiB"),
        ("MAX_BYTES", "1MiB", "$.capture.max_bytes: 1MiB is less than ring, 4MiB: one file may need it"),
    ],
)
def test_captures_that_cannot_be(pair: Load, key: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        pair(**{f"COLO_COMPARE_CAPTURE__{key}": value})
