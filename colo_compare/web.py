"""What the daemon serves over HTTP: /metrics for Prometheus, /healthz and /readyz for an orchestrator."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector

from colo_compare.core.sides import CLIENT, PRIMARY
from colo_compare.http import PLAIN, Handler, Request, Response
from colo_compare.link import Link
from colo_compare.loop import Loop
from colo_compare.metrics import OPENMETRICS, TEXT, LoopCollector, MetricsPage


def obstacles(loop: Loop) -> list[str]:
    """Say what keeps the daemon from serving clients ([]: nothing does).

    The secondary is not among it: a pair that has lost it serves on, and an orchestrator that took it out of
    service for that would make an outage of it.
    """
    found = [f"the {link.name} port is not connected" for link in _needed(loop) if not link.port.connected]
    checkpointing = loop.checkpointing
    if loop.secondary is not None:  # without one there is nothing that the checkpointer could be ready for
        if checkpointing.ended:
            found.append("the checkpointer has ended")
        elif not checkpointing.checkpointer.ready:
            found.append("the checkpointer is not ready")
    if loop.stopping:
        found.append("it is stopping")
    return found


def _needed(loop: Loop) -> list[Link]:
    return [link for link in loop.links if link.role in {CLIENT, PRIMARY}]


class Pages:
    """The pages of one daemon."""

    def __init__(self, loop: Callable[[], Loop | None], backend: str) -> None:
        """`loop` gives the loop, None as long as there is none; `backend` is the checkpointer's name."""
        self._loop = loop
        self.registry = CollectorRegistry()
        self._collector = LoopCollector(backend)
        self.registry.register(self._collector)
        ProcessCollector(registry=self.registry)
        self._page = MetricsPage(self.registry, self._take)

    def routes(self) -> Mapping[str, Handler]:
        """Give the handler of each path."""
        return {"/metrics": self.metrics, "/healthz": self.healthz, "/readyz": self.readyz}

    def _take(self) -> None:
        self._collector.take(self._loop())

    async def metrics(self, request: Request) -> Response:
        """Give the metrics, as OpenMetrics where it is asked for (only that has exemplars)."""
        content_type = OPENMETRICS if "application/openmetrics-text" in request.accept else TEXT
        return Response(200, content_type, await self._page.get(content_type))

    async def healthz(self, request: Request) -> Response:
        """Say that the loop lives. It is the loop that says it, so one that hangs says nothing."""
        return Response(200, PLAIN, b"ok\n")

    async def readyz(self, request: Request) -> Response:
        """Say whether clients can be served."""
        loop = self._loop()
        found = ["the ports are still being opened"] if loop is None else obstacles(loop)
        if found:
            return Response(503, PLAIN, "".join(f"{line}\n" for line in found).encode())
        return Response(200, PLAIN, b"ok\n")
