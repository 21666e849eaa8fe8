"""Where the two ends of the memory checkpointer meet."""

import pytest

from colo_compare.checkpoint.memory.endpoint import Endpoint


@pytest.mark.parametrize(
    ("text", "unguarded"), [("unix:/run/a", False), ("tcp:host:1", True), ("tls:host:1", False)]
)
def test_only_plain_tcp_damages_in_silence(text: str, unguarded: bool) -> None:
    assert Endpoint(text, "/etc/tls").unguarded is unguarded


@pytest.mark.parametrize("text", ["tls:host:1", "tcp:host", "udp:host:1", "unix:"])
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"needs tls_dir|is no endpoint"):
        Endpoint(text)
