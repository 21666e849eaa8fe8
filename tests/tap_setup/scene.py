"""A network namespace of a test's own, read with other tools than those that set it up."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tap_setup.check import check
from tap_setup.config import parse_config
from tap_setup.create import create
from tap_setup.desired import Desired, desire
from tap_setup.destroy import destroy
from tap_setup.report import Report

FILE = "taps.toml"  # what the advice calls the configuration


@dataclass(frozen=True)
class Scene:
    """A namespace `name`, and a tun device node that every user may open."""

    name: str
    device: Path

    def run(self, command: str) -> str:
        """Run a shell command inside; what it prints."""
        return shell(f"ip netns exec {self.name} {command}")

    def link(self, name: str) -> dict[str, Any]:
        """Give what `ip` shows of a link."""
        (link,) = json.loads(self.run(f"ip -json -details address show dev {name}"))
        assert isinstance(link, dict)
        return link

    def links(self) -> list[dict[str, Any]]:
        """Give what `ip` shows of all links, but for the timers of bridges."""
        links: list[dict[str, Any]] = json.loads(self.run("ip -json -details link show"))
        for link in links:
            data = link.get("linkinfo", {}).get("info_data", {})
            for key in [key for key in data if key.endswith("_timer")]:
                del data[key]
        return links

    def sysctl(self, name: str) -> str:
        """Give a value of /proc/sys/net."""
        return self.run(f"cat /proc/sys/net/{name}").strip()

    def offloads(self, name: str) -> dict[str, str]:
        """Give what `ethtool -k` shows."""
        lines = self.run(f"ethtool -k {name}").splitlines()[1:]
        return dict(line.strip().split(": ", 1) for line in lines)

    def desire(self, config: str) -> Desired:
        """Read a configuration; HERE in it stands for this namespace."""
        return desire(parse_config(f'device = "{self.device}"\n' + config.replace("HERE", self.name)))

    def create(self, config: str) -> Report:
        """Run `create`."""
        report = Report()
        create(self.desire(config), FILE, report)
        return report

    def check(self, config: str) -> Report:
        """Run `check`."""
        report = Report()
        check(self.desire(config), FILE, report)
        return report

    def destroy(self, config: str) -> Report:
        """Run `destroy`."""
        report = Report()
        destroy(self.desire(config), report)
        return report


def shell(command: str) -> str:
    """Run a shell command that must succeed; what it prints."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
