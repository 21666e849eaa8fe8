"""From what a TOML reader gives to typed tables; every mistake with its path and a hint."""

import difflib
import re
from collections.abc import Iterable
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec

from colo_compare.config.tables import FIXED_TABLES
from colo_compare.errors import ConfigError
from colo_compare.quantities import decode

T = TypeVar("T", bound=msgspec.Struct)

# msgspec's words for what TOML calls otherwise.
_WORDS: Final = {
    "object": "a table",
    "array": "an array",
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Give the end of a message about an unknown word: the nearest known one, else all of them."""
    candidates = sorted(known)
    near = difflib.get_close_matches(word, candidates, n=1)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; known: {', '.join(candidates)}" if candidates else "; there are none here"


def table_of(tables: dict[str, Any], name: str) -> dict[str, Any]:
    """Give a table of the file, empty where it is left out. Raises ConfigError where it is something else."""
    table = tables.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(
            f"$.{name}", f"expected a table, got {table!r}: write [{name}] and its keys below it"
        )
    return table


def field_types(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Give the keys of a table and the type of each."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(kind)}


def where_it_belongs(key: str) -> str:
    """Give the end of a message about a key that another table has, "" for a key that none has."""
    homes = [f"[{name}]" for name, kind in FIXED_TABLES.items() if key in kind.__struct_fields__]
    return f"; it belongs to {' or '.join(homes)}" if homes else ""


def convert_table(table: dict[str, Any], path: str, kind: type[T]) -> T:
    """Make the typed table.

    Raises ConfigError for an unknown key, a missing one, and a value that does not fit.
    """
    types = field_types(kind)
    for key in table:
        if key not in types:
            raise ConfigError(
                f"{path}.{key}", f"no such key{where_it_belongs(key) or did_you_mean(key, types)}"
            )
    try:
        return msgspec.convert(table, kind, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise _explain(str(error), path, types) from None


def _explain(message: str, path: str, types: dict[str, Any]) -> ConfigError:
    """Turn msgspec's message (``Expected `int`, got `str` - at `$.max_flows` ``) into ours."""
    problem, _, where = message.partition(" - at `$")
    where = where.removesuffix("`")
    if missing := re.fullmatch(r"Object missing required field `(.+)`", problem):
        return ConfigError(f"{path}{where}.{missing[1]}", "is missing, and has no default")
    if wrong := re.fullmatch(r"Invalid enum value '(.*)'", problem):
        choices = _choices(types.get(where.removeprefix(".")))
        return ConfigError(
            f"{path}{where}", f'"{wrong[1]}" is not one of {", ".join(choices)}{_near(wrong[1], choices)}'
        )
    if got := re.fullmatch(r"Expected `([^`]+)`, got `(\w+)`", problem):
        wanted = " or ".join(_WORDS.get(word, word) for word in got[1].split(" | "))
        return ConfigError(f"{path}{where}", f"expected {wanted}, got {_WORDS.get(got[2], got[2])}")
    if limit := re.fullmatch(r"Expected `(\w+)` (.+)", problem):
        return ConfigError(f"{path}{where}", f"expected {_WORDS.get(limit[1], limit[1])} {limit[2]}")
    return ConfigError(f"{path}{where}", problem)  # a quantity's own words


def _choices(kind: object) -> list[str]:
    return [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []


def _near(word: str, choices: list[str]) -> str:
    near = difflib.get_close_matches(word, choices, n=1)
    return f'; did you mean "{near[0]}"?' if near else ""
