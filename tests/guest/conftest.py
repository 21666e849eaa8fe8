"""A guest in a process of its own, and a real Linux client that it is connected to."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from colo_compare.demo import link
from colo_compare.demo.lab import CLIENT4, CLIENT6, CLIENT_MAC, prepare_host
from colo_compare.demo.namespace import Namespace, sysctl
from colo_compare.errors import SetupError


class LinuxLab:
    """A client's namespace and a guest's process, with a veth pair or a tap between them."""

    def __init__(
        self, stack: ExitStack, directory: Path, kind: str, faults: str, arguments: list[str]
    ) -> None:
        self.client = Namespace("client")
        stack.callback(self.client.close)
        self.host = Namespace("host")
        stack.callback(self.host.close)
        self.control = directory / "control"
        prepare_host(self.client)
        self.host.call(sysctl, "net.ipv6.conf.default.disable_ipv6", "1")
        self.client.call(link.set_up_loopback)
        fault = f"&fault={faults}" if faults else ""
        if kind == "packet":
            link.connect(self.host, "near", self.client, "eth0")
            self.host.call(link.set_up_silent, "near")
            self._set_up_client()
            self.host.call(link.wait_until_up, "near")
        self.guest = self.start(
            [f"--port={kind}:near?vnet_hdr=no{fault}", f"--control={self.control}", *arguments]
        )
        if kind == "tap":
            self.host.call(link.move, "near", self.client, "eth0")
            self._set_up_client()

    def _set_up_client(self) -> None:
        addresses = (f"{CLIENT4}/24", f"{CLIENT6}/64")
        self.client.call(link.set_up, "eth0", mac=CLIENT_MAC, addresses=addresses)
        self.client.call(link.set_offloads, "eth0", on=False)

    def start(self, arguments: list[str]) -> "subprocess.Popen[bytes]":
        """Start a guest and wait until it runs."""
        process = self.host.start(
            [sys.executable, "-m", "colo_compare.guest", "--commands", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    def command(self, **command: Any) -> dict[str, Any]:
        """Have the guest do something, and give its status."""
        assert self.guest.stdin is not None
        assert self.guest.stdout is not None
        self.guest.stdin.write(json.dumps(command).encode() + b"\n")
        self.guest.stdin.flush()
        answer: dict[str, Any] = json.loads(self.guest.stdout.readline())
        return answer

    def shell(self, script: str) -> str:
        """Run a script on the client, for 60 seconds at most, and give its output."""
        process = self.client.start(["timeout", "60", "sh", "-ec", script], stdout=subprocess.PIPE)
        output, _ = process.communicate()
        assert process.returncode == 0, output
        return output.decode()


@pytest.fixture
def linux(tmp_path: Path) -> Iterator[Callable[..., LinuxLab]]:
    """Give a function that builds a lab: ``linux("packet", faults="loss:0.01", arguments=[...])``."""
    try:
        Namespace("probe").close()
    except SetupError as error:
        pytest.skip(f"{error}, or in `unshare --user --map-root-user --net`")
    with ExitStack() as stack:

        def build(kind: str = "packet", faults: str = "", arguments: list[str] | None = None) -> LinuxLab:
            return LinuxLab(stack, tmp_path, kind, faults, arguments or [])

        yield build
