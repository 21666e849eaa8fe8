"""Changing one key of a configuration that is in force already."""

from typing import Any, Final

import msgspec

from colo_compare.config.checks import check_config
from colo_compare.config.convert import convert_table, did_you_mean, field_types, where_it_belongs
from colo_compare.config.environment import read_value
from colo_compare.config.load import FIXED_PROXY_KEYS
from colo_compare.config.tables import FIXED_TABLES, Config, LogTable, ProxyTable
from colo_compare.errors import ConfigError
from colo_compare.quantities import encode

_RUNTIME: Final = {  # key as an operator writes it: table, key of the table
    **{key: ("proxy", key) for key in ProxyTable.__struct_fields__ if key not in FIXED_PROXY_KEYS},
    **{f"log.{key}": ("log", key) for key in LogTable.__struct_fields__},
}


def runtime_values(config: Config) -> dict[str, Any]:
    """Give every key that can be changed while running, with its value as a configuration writes it."""
    tables = {name: msgspec.to_builtins(getattr(config, name), enc_hook=encode) for name in ("proxy", "log")}
    return {name: tables[table][key] for name, (table, key) in _RUNTIME.items()}


def change(config: Config, name: str, text: str) -> Config:
    """Give the configuration with one key set to what a text stands for.

    Raises ConfigError for a key that is unknown or fixed while running, and for a value that does not fit.
    """
    if name not in _RUNTIME:
        raise ConfigError(name, _why_not(name))
    table, key = _RUNTIME[name]
    kind = FIXED_TABLES[table]
    values = msgspec.to_builtins(getattr(config, table), enc_hook=encode)
    values[key] = read_value(text, field_types(kind)[key])
    changed = msgspec.structs.replace(config, **{table: convert_table(values, f"$.{table}", kind)})
    check_config(changed)
    return changed


def _why_not(name: str) -> str:
    if name in FIXED_PROXY_KEYS:
        return "is fixed while the proxy runs: change the configuration and restart it"
    return f"is no key that can be set while running{where_it_belongs(name) or did_you_mean(name, _RUNTIME)}"
