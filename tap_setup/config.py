"""The configuration file of colo-tap-setup: TOML, validated to frozen tables."""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from colo_compare.errors import ConfigError

# 2^32 - 1 is the kernel's "nobody".
AccountId = Annotated[int, Meta(ge=0, le=(1 << 32) - 2)]
AccountName = Annotated[str, Meta(min_length=1)]
# tun_net_initialize() in drivers/net/tun.c: ETH_MIN_MTU to MAX_MTU less the Ethernet header.
TapMtu = Annotated[int, Meta(ge=68, le=65521)]
Mtu = Annotated[int, Meta(ge=68, le=65535)]

# msgspec's words for what TOML calls otherwise.
_WORDS: Final = {
    "object": "a table",
    "array": "an array",
    "str": "a string",
    "int": "an integer",
    "bool": "true or false",
    "null": "nothing",
}


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class NamespaceTable(_Table, frozen=True):
    """A named network namespace to be made."""

    name: str


class BridgeTable(_Table, frozen=True):
    """A bridge to be made, and the existing interfaces to be put into it."""

    name: str
    namespace: str | None = None
    mtu: Mtu | None = None  # None: the smallest of its ports', as the kernel keeps it
    ports: tuple[str, ...] = ()


class TapTable(_Table, frozen=True):
    """A persistent tap to be made."""

    name: str
    # Required: a tap with neither owner nor group can be taken by any local user (tun_not_capable()).
    owner: AccountId | AccountName
    group: AccountId | AccountName | None = None
    multi_queue: bool = False
    vnet_hdr: bool = True
    mtu: TapMtu = 1500
    namespace: str | None = None
    bridge: str | None = None


class OffloadsTable(_Table, frozen=True):
    """Which offloads an interface shall have; None leaves one as it is."""

    rx: bool | None = None
    tx: bool | None = None
    tso: bool | None = None
    uso: bool | None = None
    gso: bool | None = None
    gro: bool | None = None
    lro: bool = False  # frames merged by LRO cannot be taken apart again as they were


class InterfaceTable(_Table, frozen=True):
    """An existing interface to be prepared for a ``packet:`` port."""

    name: str
    namespace: str | None = None
    mtu: Mtu | None = None
    promisc: bool = True
    offloads: OffloadsTable = OffloadsTable()


class Config(_Table, frozen=True):
    """The whole file."""

    device: str = "/dev/net/tun"
    namespaces: tuple[NamespaceTable, ...] = ()
    bridges: tuple[BridgeTable, ...] = ()
    taps: tuple[TapTable, ...] = ()
    interfaces: tuple[InterfaceTable, ...] = ()


_TABLES: Final = {
    "namespaces": NamespaceTable,
    "bridges": BridgeTable,
    "taps": TapTable,
    "interfaces": InterfaceTable,
    "offloads": OffloadsTable,
}


def load_config(path: Path) -> Config:
    """Read a configuration file. Raises ConfigError with the place of the first mistake."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"is not UTF-8 text (byte {error.start})") from None
    return parse_config(text, str(path))


def parse_config(text: str, source: str = "$") -> Config:
    """Read the text of a configuration. Raises ConfigError with the place of the first mistake."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(source, f"is not TOML: {error}") from None
    try:
        return msgspec.convert(tables, Config)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from None


def _explain(message: str) -> ConfigError:
    """Turn msgspec's message (``Expected `int`, got `str` - at `$.taps[0].mtu` ``) into ours."""
    problem, _, place = message.partition(" - at `")
    place = place.removesuffix("`") or "$"
    if missing := re.fullmatch(r"Object missing required field `(.+)`", problem):
        return ConfigError(f"{place}.{missing[1]}", "is missing, and has no default")
    if unknown := re.fullmatch(r"Object contains unknown field `(.+)`", problem):
        return ConfigError(f"{place}.{unknown[1]}", f"no such key; {_known(place, unknown[1])}")
    if got := re.fullmatch(r"Expected `([^`]+)`, got `(\w+)`", problem):
        wanted = " or ".join(_WORDS[word] for word in got[1].split(" | ") if word != "null")
        hint = f": write [[{place[2:]}]]" if place[2:] in _TABLES else ""
        return ConfigError(place, f"expected {wanted}, got {_WORDS.get(got[2], got[2])}{hint}")
    if limit := re.fullmatch(r"Expected `(\w+)` (.+)", problem):
        return ConfigError(place, f"expected {_WORDS[limit[1]]} {limit[2]}")
    return ConfigError(place, problem)


def _known(place: str, word: str) -> str:
    """Give the nearest of the keys that the table at `place` has, else all of them."""
    table = place.rpartition(".")[2].partition("[")[0]
    keys = _TABLES.get(table, Config).__struct_fields__
    near = difflib.get_close_matches(word, keys, n=1)
    return f'did you mean "{near[0]}"?' if near else f"known: {', '.join(keys)}"
