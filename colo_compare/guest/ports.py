"""The ports on which the guest serves."""

from typing import Final

ECHO_PORT: Final = 7
HTTP_PORT: Final = 80
