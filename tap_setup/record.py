"""What the program writes on a link about itself: its ifalias.

A link that was made here carries the mark ``colo-tap-setup``. A link that was there before and was only
prepared carries the mark and what it was like::

    colo-tap-setup was mtu=1500 arp=on promisc=off | uplink to switch 3

(after the bar: the alias that somebody had given it). So whether a link may be removed, and what it must be
put back to, is written on the link itself: it is gone when the link is, follows it when it is renamed or
moved to another namespace, is seen by `ip link`, and is the same from every container. A state file was the
alternative; it can be lost, or outlive its link and then belong to a stranger of the same name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from colo_compare.errors import SetupError

MARK: Final = "colo-tap-setup"
MAX_ALIAS: Final = 255  # bytes: IFALIASZ - 1, include/uapi/linux/if.h

_WAS: Final = f"{MARK} was "
_BAR: Final = " | "


@dataclass(frozen=True)
class Record:
    """What a prepared link was like: property -> value, in the order of the changes, and its alias."""

    before: Mapping[str, str]
    alias: str

    def with_value(self, key: str, value: str) -> "Record":
        """Give this record with one more property. The first value counts: that is what it was like."""
        return self if key in self.before else Record({**self.before, key: value}, self.alias)


def read_record(alias: str) -> Record | None:
    """Read the record in an alias; None if the link was not prepared."""
    if not alias.startswith(_WAS):
        return None
    fields, _, old_alias = alias.removeprefix(_WAS).partition(_BAR)
    before = {}
    for field in fields.split():
        key, _, value = field.partition("=")
        before[key] = value
    return Record(before, old_alias)


def write_record(link: str, record: Record) -> str:
    """Give the alias that holds the record. Raises SetupError if it does not fit into one."""
    fields = " ".join(f"{key}={value}" for key, value in record.before.items())
    alias = f"{_WAS}{fields}" + (f"{_BAR}{record.alias}" if record.alias else "")
    if len(alias.encode()) > MAX_ALIAS:
        raise SetupError(
            f"cannot note on {link} what it was like: with its own alias it takes over {MAX_ALIAS} bytes;"
            f" shorten it (ip link set dev {link} alias ...)"
        )
    return alias
