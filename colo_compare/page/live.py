"""The handlers of the live page: its files, and the state that they ask for once a second.

Polling, not server-sent events: the HTTP server gives all of its clients together one short stretch of the
loop at a time, and a stream for each page would be one more client that waits for its turn all the time.
"""

import time
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
import trio

from colo_compare.http import PLAIN, Handler, Request, Response
from colo_compare.loop import Loop
from colo_compare.operate.divergences import Record, Said, summary
from colo_compare.page.samples import INTERVAL, Samples
from colo_compare.status import loop_status

JSON: Final = "application/json"
FIRST: Final = 600  # events that a page gets when it is opened

# Nothing but the page's own files, from the server that it came from; nobody may put it into a frame.
_CONTENT: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY: Final = (
    ("Content-Security-Policy", _CONTENT),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
_FILES: Final = {
    "/page": ("page.html", "text/html; charset=utf-8"),
    "/page/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


class LivePage:
    """The live page of one daemon."""

    def __init__(self, loop: Callable[[], Loop | None], backend: str, *, payload: bool) -> None:
        """`loop` gives the loop, None as long as there is none; `backend` is the checkpointer's name.

        `payload`: whether the page may show what the guests said where they diverged.
        """
        self._loop = loop
        self._backend = backend
        self._payload = payload
        self._samples = Samples()
        self._started = time.time()
        static = files(__package__) / "static"
        self._files = {
            path: Response(200, kind, (static / name).read_bytes(), SECURITY)
            for path, (name, kind) in _FILES.items()
        }

    def routes(self) -> Mapping[str, Handler]:
        """Give the handler of each path."""
        return {
            **dict.fromkeys(self._files, self.file),
            "/page/state": self.state,
            "/page/divergence": self.divergence,
        }

    async def watch(self) -> None:
        """Take samples until cancelled."""
        while True:
            loop = self._loop()
            if loop is not None:
                self._samples.take(loop)
            await trio.sleep(INTERVAL)

    async def file(self, request: Request) -> Response:
        """Give a file of the page."""
        return self._files[request.path]

    async def state(self, request: Request) -> Response:
        """Give the state now, and what came after the events and samples that the page has already.

        The query: ``events=N&samples=N``, the numbers of the last ones.
        """
        loop = self._loop()
        if loop is None:
            return Response(503, PLAIN, b"the ports are still being opened\n", SECURITY)
        status = loop_status(loop, self._backend)
        del status["events"]
        hold = loop.proxy.counters.hold_time
        history = loop.history
        after = _number(request, "events")
        status |= {
            "started": self._started,  # of the daemon: its numbers begin anew then
            "time": time.time(),
            "last_commit": loop.measures.last_commit,
            "hold": {"bounds": hold.bounds, "counts": hold.counts},
            "events": history.since(after or max(0, history.last - FIRST)),
            "samples": self._samples.since(_number(request, "samples")),
        }
        return Response(200, JSON, msgspec.json.encode(status), SECURITY)

    async def divergence(self, request: Request) -> Response:
        """Give what is known of one divergence. The query: ``id=N``."""
        loop = self._loop()
        record = None if loop is None else loop.divergences.get(_number(request, "id"))
        if record is None:
            return Response(404, PLAIN, b"it is not kept any more\n", SECURITY)
        return Response(200, JSON, msgspec.json.encode(self._tell(record)), SECURITY)

    def _tell(self, record: Record) -> dict[str, Any]:
        told = summary(record) | {"why": record.cause.text, "service": record.pattern.service}
        for side in ("primary", "secondary"):
            said: Said = getattr(record, side)
            told[side] = {"time": said.time}
            if self._payload:
                told[side] |= {"bytes": said.context.hex(), "before": said.before}
        return told


def _number(request: Request, name: str) -> int:
    """Give a number of the query, 0 where there is none."""
    text = parse_qs(request.query).get(name, [""])[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
