"""The configuration as text again: the effective one as TOML, and its JSON schema."""

import json
from typing import Any, Final

import msgspec

from colo_compare.checkpoint.registry import checkpointer_names, load_checkpointer
from colo_compare.config.load import DEFAULT_BACKEND
from colo_compare.config.tables import FIXED_TABLES, TABLE_NAMES, Config
from colo_compare.errors import CheckpointerError
from colo_compare.quantities import PATTERNS, encode

_SCHEMA_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def effective_toml(config: Config) -> str:
    """Give every key with the value that is in force, as TOML that load_config reads back to the same."""
    lines: list[str] = []
    for name in TABLE_NAMES:
        lines.append(f"[{name}]")
        table = getattr(config, name)
        if name == "checkpointer":
            lines.append(f"backend = {toml_value(table.backend)}")
            table = table.options
        values: dict[str, Any] = msgspec.to_builtins(table, enc_hook=encode)
        # TOML has no null: an optional key that is not set is left out.
        lines.extend(f"{key} = {toml_value(value)}" for key, value in values.items() if value is not None)
        lines.append("")
    return "\n".join(lines)


def json_schema() -> dict[str, Any]:
    """Give the JSON schema of the file, with the options of every backend that is installed."""
    definitions: dict[str, Any] = {}
    properties = {name: _table_schema(kind, definitions) for name, kind in FIXED_TABLES.items()}
    properties["checkpointer"] = {"oneOf": _backend_schemas(definitions)}
    schema: dict[str, Any] = {
        "$schema": _SCHEMA_DIALECT,
        "title": "colo-compare configuration",
        "type": "object",
        "properties": {name: properties[name] for name in TABLE_NAMES},
        "required": ["ports"],
        "additionalProperties": False,
    }
    return {**schema, "$defs": definitions} if definitions else schema


def _backend_schemas(definitions: dict[str, Any]) -> list[dict[str, Any]]:
    schemas = []
    for name in checkpointer_names():
        try:
            schema = _table_schema(load_checkpointer(name).Options, definitions)
        except CheckpointerError:
            continue  # a broken package cannot be named in a configuration either
        schema["title"] = name
        schema["properties"] = {"backend": {"const": name}, **schema["properties"]}
        if name != DEFAULT_BACKEND:
            schema["required"] = ["backend", *schema["required"]]
        schemas.append(schema)
    return schemas


def _table_schema(kind: type[msgspec.Struct], definitions: dict[str, Any]) -> dict[str, Any]:
    """Give the schema of one table. Built by field: msgspec cannot print a quantity as a default."""
    fields = msgspec.structs.fields(kind)
    schemas, components = msgspec.json.schema_components(
        [field.type for field in fields], schema_hook=_quantity_schema, ref_template="#/$defs/{name}"
    )
    definitions.update(components)
    properties = {}
    for field, schema in zip(fields, schemas, strict=True):
        default = field.default_factory() if callable(field.default_factory) else field.default
        if default is not msgspec.NODEFAULT:
            schema["default"] = msgspec.json.decode(msgspec.json.encode(default, enc_hook=encode))
        properties[field.encode_name] = schema
    return {
        "type": "object",
        "properties": properties,
        "required": [field.encode_name for field in fields if field.required],
        "additionalProperties": False,
    }


def _quantity_schema(kind: type) -> dict[str, Any]:
    return {"type": "string", "pattern": PATTERNS[kind]}


def toml_value(value: Any) -> str:
    """Give a TOML value, a table inline. Raises TypeError for what TOML cannot hold."""
    if isinstance(value, dict):
        inner = ", ".join(f"{_string(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{{inner}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, float):
        return repr(value)  # inf and nan are TOML's words too
    if isinstance(value, str):
        return _string(value)
    return json.dumps(value)


def _string(text: str) -> str:
    """Give a TOML basic string: JSON's with DEL escaped as well, and without its surrogate pairs."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
