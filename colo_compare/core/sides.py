"""The three sides of the proxy, as roles: after a failover the promoted guest *is* the primary."""

from typing import Final

CLIENT: Final = 0
PRIMARY: Final = 1
SECONDARY: Final = 2

SIDE_NAMES: Final = ("client", "primary", "secondary")
