"""The methods of the control API. What each takes and gives: docs/control.md."""

import math
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec
import trio

from colo_compare.config import change_options, check_new_port, runtime_values
from colo_compare.control import API, Method
from colo_compare.core.counters import OPERATOR
from colo_compare.core.settings import PROTECT
from colo_compare.errors import CheckpointerError, ColoCompareError, ConfigError, ControlRefused
from colo_compare.operate.divergences import KEPT as KEPT_RECORDS
from colo_compare.operate.divergences import Record, summary
from colo_compare.operate.frame_stream import stream_capture
from colo_compare.operate.history import KEPT
from colo_compare.ports import open_port
from colo_compare.status import loop_status
from colo_compare.suitability.watch import watch

if TYPE_CHECKING:
    from colo_compare.daemon import Daemon

LONGEST_DRAIN: Final = 600.0  # seconds
_MOST: Final = 20  # flows and checkpoints in `activity`
_CHECKPOINTS: Final = ("CheckpointCommitted", "CheckpointAborted")

P = TypeVar("P", bound=msgspec.Struct)


class _NoParams(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _SetParams(msgspec.Struct, forbid_unknown_fields=True):
    key: str = ""
    value: str = ""


class _ProtectParams(msgspec.Struct, forbid_unknown_fields=True):
    port: str = ""
    client: str = ""
    set: dict[str, Any] = {}
    timeout: float = math.inf  # seconds


class _DrainParams(msgspec.Struct, forbid_unknown_fields=True):
    action: Literal["begin", "end"] = "begin"
    timeout: float = 10.0  # seconds


class _EventsParams(msgspec.Struct, forbid_unknown_fields=True):
    last: int = 20
    follow: bool = False


class _DivergencesParams(msgspec.Struct, forbid_unknown_fields=True):
    last: int = 20


class _ExplainParams(msgspec.Struct, forbid_unknown_fields=True):
    id: int = 0  # 0: the last one


class _CaptureParams(msgspec.Struct, forbid_unknown_fields=True):
    seconds: float | None = None  # None: until the client goes
    before: bool = True  # begin with what is kept already


class _SuitabilityParams(msgspec.Struct, forbid_unknown_fields=True):
    duration: float = 600.0  # seconds
    checkpoint_time: float = 0.05


class ControlMethods:
    """What a client of the control socket may ask of one daemon."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    def table(self) -> Mapping[str, Method]:
        """Give the methods by name."""
        return {
            "version": self.version,
            "status": self.status,
            "activity": self.activity,
            "events": self.events,
            "checkpoint": self.checkpoint,
            "promote": self.promote,
            "protect": self.protect,
            "drain": self.drain,
            "set": self.set,
            "divergences": self.divergences,
            "explain": self.explain,
            "capture": self.capture,
            "suitability": self.suitability,
        }

    async def version(self, params: dict[str, Any]) -> dict[str, Any]:
        """Give the API's version and the names of its methods."""
        _read(params, _NoParams)
        return {"api": API, "methods": sorted(self.table())}

    async def status(self, params: dict[str, Any]) -> dict[str, Any]:
        """Give the state of everything."""
        _read(params, _NoParams)
        status = loop_status(self._daemon.loop, self._daemon.config.checkpointer.backend)
        captures = self._daemon.captures
        return {**status, "captures": {} if captures is None else captures.figures()}

    async def activity(self, params: dict[str, Any]) -> dict[str, Any]:
        """Give what `top` shows: status, hold times, the flows that diverge most, the last checkpoints."""
        loop = self._daemon.loop
        hold = loop.proxy.counters.hold_time
        flows = Counter(record.flow for record in loop.divergences.latest(KEPT_RECORDS))
        checkpoints = [event for event in loop.history.since(0) if event["event"] in _CHECKPOINTS]
        return {
            "status": await self.status(params),
            "hold": {"bounds": list(hold.bounds), "counts": list(hold.counts)},
            "flows": [{"flow": flow, "divergences": count} for flow, count in flows.most_common(_MOST)],
            "checkpoints": checkpoints[-_MOST:],
        }

    async def events(self, params: dict[str, Any]) -> list[dict[str, Any]] | AsyncGenerator[Any, None]:
        """Give the last events, or those and all that come."""
        wanted = _read(params, _EventsParams)
        history = self._daemon.loop.history
        begin = max(history.last - min(max(wanted.last, 0), KEPT), 0)
        return history.follow(begin) if wanted.follow else history.since(begin)

    async def divergences(self, params: dict[str, Any]) -> dict[str, Any]:
        """Give the last divergences in short, and the patterns that they follow."""
        wanted = _read(params, _DivergencesParams)
        divergences = self._daemon.loop.divergences
        return {
            "divergences": [summary(record) for record in divergences.latest(max(wanted.last, 0))],
            "patterns": divergences.patterns(),
        }

    async def explain(self, params: dict[str, Any]) -> Record:
        """Give all that is known of one divergence. Raises ControlRefused where it is not known."""
        wanted = _read(params, _ExplainParams)
        divergences = self._daemon.loop.divergences
        latest = divergences.latest(1)
        if not latest:
            raise ControlRefused("nothing has diverged since the start")
        record = divergences.get(wanted.id) if wanted.id else latest[0]
        if record is None:
            raise ControlRefused(
                f"divergence {wanted.id} is not known: of {latest[0].id}, the last {KEPT_RECORDS} are kept"
            )
        return record

    async def capture(self, params: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """Give the frames of all sides as the pieces of a pcapng file, while they come."""
        wanted = _read(params, _CaptureParams)
        if wanted.seconds is not None and not 0 <= wanted.seconds < math.inf:
            raise ControlRefused(f"seconds must be 0 or more, not {wanted.seconds:g}")
        return stream_capture(self._daemon.loop.frames, wanted.seconds, wanted.before)

    async def suitability(self, params: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """Watch the traffic for a while, and give what a verdict is made of."""
        wanted = _read(params, _SuitabilityParams)
        return watch(self._daemon.loop, wanted.duration, wanted.checkpoint_time)

    async def checkpoint(self, params: dict[str, Any]) -> dict[str, Any]:
        """Ask for a checkpoint; gives the epoch that it will begin. Raises ControlRefused."""
        _read(params, _NoParams)
        loop = self._daemon.loop
        if loop.proxy.mode != PROTECT:
            raise ControlRefused(f"mode {loop.proxy.mode} makes no checkpoints")
        with loop.core():
            loop.proxy.request_checkpoint(OPERATOR, trio.current_time())
            loop.perform()
        return {"epoch": loop.proxy.epoch + 1}

    async def promote(self, params: dict[str, Any]) -> dict[str, Any]:
        """Move the service to the secondary. Raises ControlRefused."""
        _read(params, _NoParams)
        loop = self._daemon.loop
        try:
            await loop.failover.promote("asked for by the operator")
        except CheckpointerError as error:
            raise ControlRefused(f"not promoted: {error}") from error
        return {"primary": loop.primary.port.url}

    async def protect(self, params: dict[str, Any]) -> dict[str, Any]:
        """Give the guest that runs alone a new secondary; answers when the pair is protected.

        `port`: its URL, else that of the guest that was lost. `client`: the client port's, where it went with
        the old primary and is at another place from now on. `set`: options of the checkpointer that are
        others from now on. Raises ControlRefused.
        """
        wanted = _read(params, _ProtectParams)
        loop = self._daemon.loop
        try:
            lost = loop.protection.lost_link()
            url = wanted.port or lost.port.url
            others = {link.name: link.port.url for link in loop.links if link is not lost}
            check_new_port(url, others)
            client = None
            if wanted.client not in ("", loop.client.port.url):
                check_new_port(wanted.client, {"primary": loop.primary.port.url, "secondary": url})
                client = open_port(wanted.client)
            options = loop.checkpointing.checkpointer.options
            if wanted.set:
                options = change_options(options, wanted.set)
            await loop.protection.protect(open_port(url), options, wanted.timeout, client)
        except ColoCompareError as error:
            raise ControlRefused(f"not protected: {error}") from error
        return {"primary": loop.primary.port.url, "secondary": url, "epoch": loop.proxy.epoch}

    async def drain(self, params: dict[str, Any]) -> dict[str, Any]:
        """Take nothing from the client, and wait until nothing is held; or take from it again."""
        wanted = _read(params, _DrainParams)
        loop = self._daemon.loop
        if wanted.action == "end":
            loop.take_in()
        elif not 0 <= wanted.timeout <= LONGEST_DRAIN:
            raise ControlRefused(f"timeout must be 0 to {LONGEST_DRAIN:g} seconds, not {wanted.timeout:g}")
        else:
            await loop.drain_out(wanted.timeout)
        return {
            "draining": loop.draining,
            "empty": not (loop.proxy.held_frames or loop.client.backlog),
            "held": loop.proxy.held_frames,
            "backlog": len(loop.client.backlog),
        }

    async def set(self, params: dict[str, Any]) -> dict[str, Any]:
        """Change a setting; without a key give them all. Raises ControlRefused."""
        wanted = _read(params, _SetParams)
        daemon = self._daemon
        if not wanted.key:
            return {"settings": self._settings()}
        before = self._settings().get(wanted.key)
        try:
            if wanted.key == "mode":
                await daemon.set_mode(wanted.value)
            else:
                daemon.change(wanted.key, wanted.value)
        except ConfigError as error:
            raise ControlRefused(f"not set: {error}") from error
        return {"key": wanted.key, "before": before, "now": self._settings()[wanted.key]}

    def _settings(self) -> dict[str, Any]:
        return {"mode": self._daemon.loop.proxy.mode, **runtime_values(self._daemon.config)}


def _read(params: dict[str, Any], kind: type[P]) -> P:
    """Give the params as their type. Raises ControlRefused."""
    try:
        return msgspec.convert(params, kind)
    except msgspec.ValidationError as error:
        raise ControlRefused(f"wrong params: {error}") from None
