"""The real Prometheus, in a namespace of its own, beside any number of labs whose daemons it scrapes."""

import json
import re
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from colo_compare.demo import link
from colo_compare.demo.lab import Lab
from colo_compare.demo.namespace import Namespace
from tests.grafana.boards import RULES

PORT = 9464  # of the daemons
STARTS = 20.0  # seconds

Series = dict[str, Any]  # of Prometheus's API: "metric" (labels) and "value" or "values"

CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 500ms}}
rule_files: ["{directory}/rules-*.yaml"]
scrape_configs:
  - job_name: colo-compare
    file_sd_configs: [{{files: ["{directory}/targets.json"]}}]
"""


def hasten(rules: str) -> str:
    """Shorten the windows and the patience of rules, so that a fault shows within seconds."""
    return re.sub(r"\[\d+m\]", "[10s]", re.sub(r"\bfor: \d+m\b", "for: 1s", rules))


class Prometheus:
    """A monitoring host with a cable to each lab's proxy."""

    def __init__(self, directory: Path) -> None:
        self.namespace = Namespace("monitor")
        self._directory = directory
        self._targets: list[str] = []

    def start(self) -> None:
        """Start it, without any target, and wait until it answers."""
        self.namespace.call(link.set_up_loopback)
        config = self._directory / "prometheus.yml"
        config.write_text(CONFIG.format(directory=self._directory))
        for path in RULES:
            (self._directory / f"rules-{path.name}").write_text(hasten(path.read_text()))
        self._write_targets()
        self.namespace.start(
            [
                "env",
                "GOMAXPROCS=1",
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={self._directory / 'data'}",
                "--web.listen-address=127.0.0.1:9090",
                "--enable-feature=exemplar-storage",
                "--log.level=error",
            ]
        )
        self.until(self._is_ready, STARTS)

    def watch(self, lab: Lab) -> str:
        """Lay a cable to a lab, whose daemon is not started yet; gives where it must listen."""
        number = len(self._targets) + 1
        name = f"pair{number}"
        link.connect(lab.proxy_namespace, "monitor", self.namespace, name)
        self.namespace.call(link.set_up, name, addresses=[f"10.78.{number}.1/30"])
        lab.proxy_namespace.call(link.set_up, "monitor", addresses=[f"10.78.{number}.2/30"])
        self._targets.append(f"10.78.{number}.2:{PORT}")
        self._write_targets()
        return self._targets[-1]

    def forget_all(self) -> None:
        """Scrape nothing any more."""
        self._targets.clear()
        self._write_targets()

    def _write_targets(self) -> None:
        # In one step: it reads the file whenever it changes, and a half one is an error.
        new = self._directory / "targets.new"
        new.write_text(json.dumps([{"targets": self._targets}] if self._targets else []))
        new.rename(self._directory / "targets.json")

    def until(self, condition: Callable[[], bool], limit: float) -> bool:
        """Wait until something is so; says whether it came to be in time."""
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def _is_ready(self) -> bool:
        try:
            return self._get("/-/ready")[0] == 200
        except OSError:
            return False

    def _get(self, path: str) -> tuple[int, bytes]:
        return self.namespace.call(_get, "127.0.0.1", 9090, path)

    def api(self, call: str, **parameters: str | float) -> Any:
        """Call its API and give the data. Fails when it refuses."""
        status, body = self._get(f"/api/v1/{call}?{urlencode(parameters)}")
        answer = json.loads(body)
        assert status == 200, (call, parameters, answer)
        return answer["data"]

    def query(self, expression: str, at: float) -> list[Series]:
        """Give the samples of one moment (Unix time)."""
        result: list[Series] = self.api("query", query=expression, time=at)["result"]
        return result

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[Series]:
        """Give the samples of a span (Unix times)."""
        data = self.api("query_range", query=expression, start=start, end=end, step=step)
        result: list[Series] = data["result"]
        return result

    def firing(self) -> set[tuple[str, str]]:
        """Give the alerts that fire now: name and instance ("" where it has none)."""
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance", ""))
            for alert in self.api("alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def close(self) -> None:
        """End it."""
        self.namespace.close()


def _get(host: str, port: int, path: str) -> tuple[int, bytes]:
    connection = HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
