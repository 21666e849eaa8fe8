"""Where somebody listens: ``unix:PATH``, ``tcp:HOST:PORT`` or ``tls:HOST:PORT``."""

import re
from dataclasses import dataclass
from typing import ClassVar, Final, Self

UNIX: Final = "unix"
TLS: Final = "tls"
_INTERNET: Final = re.compile(r"(tcp|tls):(\[[0-9a-fA-F:.%]+\]|[^:\[\]]+):([0-9]{1,5})")


@dataclass(frozen=True)
class SocketAddress:
    """An address. `host` and `port` for ``tcp`` and ``tls``, `path` for ``unix``."""

    what: ClassVar[str] = "endpoint"  # for the message to whoever wrote something else

    kind: str
    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address. Raises ValueError with a message for people."""
        if text.startswith("unix:") and len(text) > len("unix:"):
            return cls(UNIX, path=text.removeprefix("unix:"))
        match = _INTERNET.fullmatch(text)
        if match is None or not 0 < int(match[3]) < 1 << 16:
            raise ValueError(f'"{text}" is no {cls.what}: write unix:PATH, tcp:HOST:PORT or tls:HOST:PORT')
        return cls(match[1], host=match[2].strip("[]"), port=int(match[3]))

    def __str__(self) -> str:
        if self.kind == UNIX:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}:{host}:{self.port}"
