"""A registry as the text of one page, made so that no frame waits for it.

A page of 370 lines is 2 ms of Python. Made on the loop, that would be a delay; made in a thread in one go, it
would be one too: threads share one interpreter, and who wants it back waits for up to 5 ms
(`sys.getswitchinterval`). So the thread makes one family at a time, 0.2 ms for the longest, and then sleeps:
the loop takes the interpreter whenever it wants, and waits for one family at most.

However many ask at once, one page is made at a time, and all who asked before it was begun get it.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import trio
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

PAUSE: Final = 0.001  # seconds between two families
FRESH: Final = 0.1  # seconds for which a page is given again

OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_END: Final = b"# EOF\n"  # of an OpenMetrics page
_ENCODERS: Final[Mapping[str, Callable[[Collector], bytes]]] = {
    OPENMETRICS: generate_openmetrics,
    TEXT: generate_latest,
}


@dataclass(frozen=True)
class _Page:
    taken_at: float  # trio's time
    text: bytes


class MetricsPage:
    """Pages of one registry, in two formats."""

    def __init__(self, registry: CollectorRegistry, take: Callable[[], None]) -> None:
        """`take` is called on the loop before a page is made: collectors copy there what they will need."""
        self._registry = registry
        self._take = take
        self._making = trio.Lock()
        self._pages: dict[str, _Page] = {}

    async def get(self, content_type: str) -> bytes:
        """Give a page in the format OPENMETRICS or TEXT, at most FRESH seconds older than the question."""
        oldest = trio.current_time() - FRESH
        async with self._making:
            page = self._pages.get(content_type)
            if page is None or page.taken_at < oldest:
                taken_at = trio.current_time()
                self._take()
                # Given up when the daemon ends: it must not wait for a page that nobody will read.
                text = await trio.to_thread.run_sync(self._make, content_type, abandon_on_cancel=True)
                page = self._pages[content_type] = _Page(taken_at, text)
        return page.text

    def _make(self, content_type: str) -> bytes:
        parts = []
        for family in self._registry.collect():
            parts.append(render(family, content_type))
            time.sleep(PAUSE)
        if content_type == OPENMETRICS:
            parts.append(_END)
        return b"".join(parts)


class _One(Collector):
    """What the encoders take for a registry: a single family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


def render(family: Metric, content_type: str) -> bytes:
    """Give the lines of one family."""
    return _ENCODERS[content_type](_One(family)).removesuffix(_END)
