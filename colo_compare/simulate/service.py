"""What the simulated guests serve, and how a client finds out that somebody has forgotten something.

The service keeps one history over all connections and protocols: each answer has its index in it and a chain
value over all answers before. So whatever a survivor has forgotten, repeated or made otherwise shows in what
it says next, on whichever connection.
"""

import struct
import zlib
from functools import lru_cache
from typing import Final

from colo_compare.simulate.tcp import Contradiction

SERVICE: Final = 80
CALLBACK: Final = 9000
DATAGRAMS: Final = 53

REQUEST: Final = struct.Struct(">cHB")
"""Kind, name, and size of a body in units (`UNITS`)."""
ANSWER: Final = struct.Struct(">cHBIII")
"""The request, index, token, chain; then the body."""

FIXED: Final = b"G"  # a body that is known
DRAWN: Final = b"D"  # a number that each guest draws for itself
HALVES: Final = b"H"  # a body whose second half is made of such a number
UPLOAD: Final = b"U"  # the request brings a body along
CALL_BACK: Final = b"C"  # the guest also calls the client, on a connection of its own
RESET: Final = b"X"  # the answer is a reset

PLAIN_TOKEN: Final = 7
UNITS: Final = {FIXED: 40, DRAWN: 40, HALVES: 400, UPLOAD: 40, CALL_BACK: 40, RESET: 0}
_CHAINED: Final = struct.Struct(">II")


@lru_cache(maxsize=256)
def body(name: int, length: int) -> bytes:
    """Give bytes that nothing else consists of."""
    pattern = b"%04x-%04x " % (name & 0xFFFF, (name * 40503) & 0xFFFF)
    return (pattern * (length // len(pattern) + 1))[:length]


def whole_request(request: bytes) -> bytes:
    """Give a request with the body that an upload brings."""
    kind, name, size = REQUEST.unpack(request)
    return request + body(name, size * UNITS[UPLOAD]) if kind == UPLOAD else request


def answer_body(kind: bytes, name: int, size: int, token: int) -> bytes:
    """Give the body of an answer."""
    length = size * UNITS[kind]
    if kind == UPLOAD:
        return b""
    if kind != HALVES:
        return body(name, length)
    half = length // 2
    return body(name, half) + body(token & 0xFFFF ^ token >> 16, length - half)


def link(chain: int, request: bytes, index: int, token: int) -> int:
    """Give the chain value behind one more answer."""
    return zlib.crc32(request + _CHAINED.pack(index, token), chain)


class History:
    """What the service has answered so far."""

    def __init__(self, index: int = 0, chain: int = 0) -> None:
        self.index = index
        self.chain = chain

    def answer(self, request: bytes, token: int) -> bytes:
        """Answer, and never forget it."""
        kind, name, size = REQUEST.unpack(request)
        self.chain = link(self.chain, request, self.index, token)
        said = ANSWER.pack(kind, name, size, self.index, token, self.chain)
        self.index += 1
        return said + answer_body(kind, name, size, token)


class Witness:
    """Holds every answer against every other."""

    def __init__(self) -> None:
        self._answers: dict[int, tuple[bytes, int, int]] = {}  # by index: request, token, chain
        self.given_up = 0  # requests whose answers nobody waits for any more

    def note(self, answer: bytes) -> None:
        """Take a whole answer. Raises Contradiction."""
        kind, name, size, index, token, chain = ANSWER.unpack_from(answer)
        request = REQUEST.pack(kind, name, size)
        if answer[ANSWER.size :] != answer_body(kind, name, size, token):
            raise Contradiction(f"the answer to {name} has another body")
        if kind not in (DRAWN, HALVES) and token != PLAIN_TOKEN:
            raise Contradiction(f"the answer to {name} has token {token}")
        known = self._answers.setdefault(index, (request, token, chain))
        if known != (request, token, chain):
            raise Contradiction(f"answer {index} is to {name} now, and was {known} before")
        before = self._answers.get(index - 1)
        if (before is not None or index == 0) and (
            link(before[2] if before is not None else 0, request, index, token) != chain
        ):
            raise Contradiction(f"answer {index} does not follow what was said before")
        after = self._answers.get(index + 1)
        if after is not None and link(chain, after[0], index + 1, after[1]) != after[2]:
            raise Contradiction(f"answer {index + 1} does not follow answer {index}")

    def check_history(self) -> None:
        """When all is done: one history, each request in it once. Raises Contradiction."""
        gaps = max(self._answers, default=-1) + 1 - len(self._answers)
        if gaps > self.given_up:
            raise Contradiction(f"{gaps} answers are missing in the history, {self.given_up} were given up")
        names = [request for request, _, _ in self._answers.values()]
        if len(set(names)) != len(names):
            raise Contradiction("a request was answered twice")
