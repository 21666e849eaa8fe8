"""Reading the configuration, and telling which changes can be taken while running."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from colo_compare.checkpoint.registry import load_checkpointer
from colo_compare.config.checks import check_config
from colo_compare.config.convert import convert_table, did_you_mean, field_types, table_of, where_it_belongs
from colo_compare.config.environment import override, responsible_variable
from colo_compare.config.tables import FIXED_TABLES, TABLE_NAMES, CheckpointerTable, Config
from colo_compare.errors import CheckpointerError, ConfigError

# It refuses to protect, so leaving the line out never gives a pair that looks protected and is not.
DEFAULT_BACKEND: Final = "null"

# Of [proxy] only these are fixed for the life of the process; an operator changes the mode by a command.
FIXED_PROXY_KEYS: Final = frozenset({"mode", "mirror", "rewrite"})


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Read a configuration file and the overrides in the environment.

    Raises ConfigError with the place of the first mistake. Opens no port and starts no backend.
    """
    tables = _read_toml(path)
    variables = override(tables, environ, lambda table: _keys_of(tables, table))
    try:
        config = _build(tables)
        check_config(config)
    except ConfigError as error:
        variable = responsible_variable(error.path, variables)
        if variable is None:
            raise
        raise ConfigError(error.path, f"{error.problem} (set by {variable})") from None
    return config


def runtime_changes(old: Config, new: Config) -> list[str]:
    """Give the paths of the keys whose change needs a restart. All others apply while running."""
    before, after = _flat(old), _flat(new)
    return [
        f"$.{table}.{key}"
        for table, key in sorted(before.keys() | after.keys())
        if before.get((table, key)) != after.get((table, key))
        and table != "log"
        and (table != "proxy" or key in FIXED_PROXY_KEYS)
    ]


def _flat(config: Config) -> dict[tuple[str, str], Any]:
    flat: dict[tuple[str, str], Any] = {("checkpointer", "backend"): config.checkpointer.backend}
    for table in TABLE_NAMES:
        struct = config.checkpointer.options if table == "checkpointer" else getattr(config, table)
        flat.update({(table, key): value for key, value in msgspec.structs.asdict(struct).items()})
    return flat


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"is not UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), f"is not TOML: {error}") from None


def _build(tables: dict[str, Any]) -> Config:
    for name in tables:
        if name not in TABLE_NAMES:
            raise ConfigError(
                f"$.{name}", f"no such table{where_it_belongs(name) or did_you_mean(name, TABLE_NAMES)}"
            )
    parts: dict[str, Any] = {
        name: convert_table(table_of(tables, name), f"$.{name}", kind) for name, kind in FIXED_TABLES.items()
    }
    options = dict(table_of(tables, "checkpointer"))
    backend = options.pop("backend", DEFAULT_BACKEND)
    parts["checkpointer"] = CheckpointerTable(
        backend=backend,
        options=convert_table(options, "$.checkpointer", _options_of(backend)),
    )
    return Config(**parts)


def _keys_of(tables: dict[str, Any], table: str) -> dict[str, Any] | None:
    if table == "checkpointer":
        backend = table_of(tables, table).get("backend", DEFAULT_BACKEND)
        return {"backend": str, **field_types(_options_of(backend))}
    return field_types(FIXED_TABLES[table]) if table in FIXED_TABLES else None


def _options_of(backend: object) -> type[msgspec.Struct]:
    if not isinstance(backend, str):
        raise ConfigError("$.checkpointer.backend", f"expected a string, got {backend!r}")
    try:
        return load_checkpointer(backend).Options
    except CheckpointerError as error:
        raise ConfigError("$.checkpointer.backend", str(error)) from None
