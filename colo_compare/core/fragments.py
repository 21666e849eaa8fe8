"""IP fragments, collected until they make a datagram (rule 3: the guests number and cut them differently)."""

from typing import Final

from colo_compare.core.counters import S_AGED_OUT, S_OVERFLOW
from colo_compare.core.hold import Flow, Held
from colo_compare.core.ledger import Ledger
from colo_compare.core.settings import OBSERVE
from colo_compare.wire.fragments import join_fragments
from colo_compare.wire.frame import Frame

_MAX_GROUPS: Final = 1024  # unfinished datagrams that are not held; of those, the hold limits count


class Group(Flow):
    """The fragments of one datagram so far. Whoever forgets it clears `held`, which refers to it."""

    def __init__(self, key: bytes, now: float) -> None:
        super().__init__(key, now)
        self.frames: list[Frame] = []
        self.held: list[Held] = []


class Whole:
    """A datagram that is complete, and the frames that brought it, in arrival order."""

    def __init__(self, datagram: Frame, frames: list[Frame]) -> None:
        self.datagram = datagram
        self.frame = frames[0]
        self.more = frames[1:] or None


class Reassembly:
    """Unfinished datagrams of one guest. The primary's are held, unless they pass (observe mode)."""

    def __init__(self, ledger: Ledger, of_primary: bool) -> None:
        self.ledger = ledger
        self.of_primary = of_primary
        self.groups: dict[bytes, Group] = {}

    def add(self, frame: Frame) -> "Whole | None":
        """Take a fragment; give the datagram if it is complete by it."""
        ledger = self.ledger
        name = frame.key + frame.fragment_id.to_bytes(4, "big")
        group = self.groups.get(name)
        if group is None:
            group = Group(frame.key, ledger.now)
            self.groups[name] = group
            if not self._holds() and len(self.groups) > _MAX_GROUPS:
                self._drop(next(iter(self.groups)), S_OVERFLOW)
        group.frames.append(frame)
        datagram = join_fragments(group.frames, False)
        if datagram is None:
            if self._holds():
                held = Held(group, frame, None, ledger.now)
                group.held.append(held)
                ledger.hold(held)
            return None
        del self.groups[name]
        for held in group.held:
            ledger.holds.remove(held)
        group.held.clear()
        return Whole(datagram, group.frames)

    def _holds(self) -> bool:
        return self.of_primary and self.ledger.mode != OBSERVE

    def _drop(self, name: bytes, fate: str) -> None:
        group = self.groups.pop(name)
        group.held.clear()
        if not self.of_primary:
            self.ledger.counters.secondary[fate] += len(group.frames)

    def age(self) -> None:
        """Forget what nobody will complete any more; what is held waits for a checkpoint."""
        limit = self.ledger.now - self.ledger.settings.fragment_timeout
        for name, group in list(self.groups.items()):
            if group.last_seen > limit:
                break
            if not self._holds():
                self._drop(name, S_AGED_OUT)

    def clear(self) -> int:
        """Forget all groups (their held frames are dealt with by the caller); give the number of frames."""
        count = 0
        for group in self.groups.values():
            count += len(group.frames)
            group.held.clear()
        self.groups = {}
        return count

    def frames(self) -> list[Frame]:
        """Give all fragments, in arrival order by datagram."""
        found: list[Frame] = []
        for group in self.groups.values():
            found.extend(group.frames)
        return found
