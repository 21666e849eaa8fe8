"""What finds out which pages a guest has written."""

from abc import ABC, abstractmethod
from typing import ClassVar

from colo_compare.checkpoint.memory.page_map import Run


class Tracker(ABC):
    """Looks at one guest's memory."""

    name: ClassVar[str]

    @abstractmethod
    def look(self) -> list[Run]:
        """Give the pages written since the look before, or since it was made; ascending runs.

        A page written while this runs is in this look or in the next, so look first and read pages then.
        Raises CheckpointerError when the guest is gone, and what it wrote cannot be told any more.
        """

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of what it holds."""
