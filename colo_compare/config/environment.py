"""Overrides in the environment: ``COLO_COMPARE_<TABLE>__<KEY>=value``.

Table and key are written in upper case. The value is taken as it stands where the key takes text (a name, a
URL, a duration, a size); else it is read as a TOML value (``true``, ``5``, ``["a", "b"]``).
"""

import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from colo_compare.config.convert import did_you_mean, table_of
from colo_compare.errors import ConfigError
from colo_compare.quantities import decode

PREFIX: Final = "COLO_COMPARE_"


def override(
    tables: dict[str, Any], environ: Mapping[str, str], keys_of: Callable[[str], dict[str, Any] | None]
) -> dict[str, str]:
    """Put the environment's values over the file's, and give the path that each variable set.

    `keys_of(table)` gives the keys of a table with their types, None for an unknown table; it is asked for
    [checkpointer] only after that table's `backend` was overridden.

    Raises ConfigError that names the variable.
    """
    responsible: dict[str, str] = {}
    for name in sorted(environ, key=_backend_first):
        if not name.startswith(PREFIX):
            continue
        table, separator, key = name.removeprefix(PREFIX).lower().partition("__")
        types = keys_of(table) if separator and name == name.upper() else None
        if types is None:
            raise ConfigError(
                name, f"sets nothing: the form is {PREFIX}<TABLE>__<KEY>, like {PREFIX}PROXY__MODE"
            )
        if key not in types:
            raise ConfigError(name, f'sets nothing: [{table}] has no key "{key}"{did_you_mean(key, types)}')
        tables[table] = {**table_of(tables, table), key: read_value(environ[name], types[key])}
        responsible[f"$.{table}.{key}"] = name
    return responsible


def responsible_variable(path: str, responsible: Mapping[str, str]) -> str | None:
    """Give the variable that set what a path points to, None if none did."""
    for prefix, variable in responsible.items():
        if path == prefix or path.startswith((f"{prefix}.", f"{prefix}[")):
            return variable
    return None


def _backend_first(name: str) -> tuple[bool, str]:
    return (name != f"{PREFIX}CHECKPOINTER__BACKEND", name)


def read_value(text: str, kind: Any) -> Any:
    """Give the value that a text stands for, for a key of this type: the text, or what TOML reads in it."""
    try:
        msgspec.convert(text, kind, dec_hook=decode)
    except msgspec.ValidationError:
        pass
    else:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # the conversion of the whole table says what is wrong with it
