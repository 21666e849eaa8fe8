"""Other options for a backend that runs."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from colo_compare.config.convert import convert_table, field_types
from colo_compare.config.environment import read_value
from colo_compare.quantities import encode

T = TypeVar("T", bound=msgspec.Struct)


def change_options(options: T, changes: Mapping[str, Any]) -> T:
    """Give a backend's options with other values for some keys.

    A text is read as it is in the environment; other values are taken as they are. Raises ConfigError with
    the path of the first mistake.
    """
    types = field_types(type(options))
    table = {
        key: value
        for key, value in msgspec.to_builtins(options, enc_hook=encode).items()
        if value is not None  # TOML has no null: an optional key that is not set is left out
    }
    for key, value in changes.items():
        table[key] = read_value(value, types[key]) if isinstance(value, str) and key in types else value
    return convert_table(table, "$.checkpointer", type(options))
