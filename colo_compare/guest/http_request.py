"""The head of an HTTP/1.1 request (RFC 9112)."""

from dataclasses import dataclass
from typing import Final

LONGEST_HEAD: Final = 4096
END: Final = b"\r\n\r\n"


class BadRequest(Exception):
    """The head is not well-formed, or wants what this server does not do. The answer's status line."""


@dataclass(frozen=True)
class Request:
    """What the server needs of a head."""

    method: str
    path: str
    length: int  # of the body
    keep: bool  # the connection stays open after the answer (RFC 9112, 9.3)
    expects: bool  # the client waits for "100 Continue" (RFC 9110, 10.1.1)


def parse(head: bytes) -> Request:
    """Read a head without its last empty line. Raises BadRequest."""
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1.") or not parts[1].startswith("/"):
        raise BadRequest("400 Bad Request")
    length = 0
    keep = parts[2] != "HTTP/1.0"
    expects = False
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        name = name.lower()
        value = value.strip().lower()
        if not colon:
            raise BadRequest("400 Bad Request")
        if name == "content-length":
            if not value.isascii() or not value.isdigit():
                raise BadRequest("400 Bad Request")
            length = int(value)
        elif name == "transfer-encoding":
            raise BadRequest("411 Length Required")
        elif name == "connection":
            keep = "close" not in value and (keep or "keep-alive" in value)
        elif name == "expect":
            expects = value == "100-continue"
    if length >= 1 << 62:
        raise BadRequest("413 Content Too Large")
    return Request(parts[0], parts[1], length, keep, expects)
