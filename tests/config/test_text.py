import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_compare.checkpoint.registry import checkpointer_names
from colo_compare.config import Config, effective_toml, json_schema
from colo_compare.config.text import toml_value

Load = Callable[..., Config]


def test_the_effective_configuration_has_every_key_with_its_unit(pair: Load) -> None:
    text = effective_toml(pair('[proxy]\ncoalesce = "0.02s"\nmax_held_bytes = "1024MiB"\n'))
    assert text.splitlines()[:9] == [
        "[proxy]",
        'mode = "protect"',
        "mirror = true",
        "rewrite = true",
        'compare_timeout = "3s"',
        'datagram_window = "20ms"',
        'mirror_retry = "20ms"',
        'coalesce = "20ms"',
        'min_interval = "0s"',
    ]
    tables = tomllib.loads(text)
    assert list(tables) == ["proxy", "ports", "checkpointer", "control", "http", "capture", "process", "log"]
    assert tables["proxy"]["max_held_bytes"] == "1GiB"
    assert tables["checkpointer"]["backend"] == "command"
    assert tables["checkpointer"]["checkpoint"] == ["/usr/bin/true"]


def test_the_effective_configuration_reads_back_to_the_same(load: Load, pair: Load) -> None:
    config = pair('[proxy]\nmax_interval = "off"\nidle_timeout = "1.5h"\n[log]\nformat = "json"\n')
    assert load(effective_toml(config)) == config


texts = st.text(st.characters(codec="utf-8"))


@given(
    st.recursive(
        st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=5,
    )
)
def test_any_option_of_a_backend_can_be_printed(value: Any) -> None:
    assert tomllib.loads(f"value = {toml_value(value)}")["value"] == value


def test_an_option_that_is_not_set_is_left_out(pair: Load) -> None:
    class Options(msgspec.Struct):
        name: str | None = None

    config = msgspec.structs.replace(
        pair(), checkpointer=msgspec.structs.replace(pair().checkpointer, options=Options())
    )
    assert "name" not in effective_toml(config)


def test_the_schema_has_every_table_and_what_is_required() -> None:
    schema = json_schema()
    assert list(schema["properties"]) == [
        "proxy",
        "ports",
        "checkpointer",
        "control",
        "http",
        "capture",
        "process",
        "log",
    ]
    assert schema["required"] == ["ports"]
    assert schema["additionalProperties"] is False
    proxy = schema["properties"]["proxy"]
    assert proxy["additionalProperties"] is False
    assert proxy["properties"]["compare_timeout"]["default"] == "3s"
    assert proxy["properties"]["max_interval"]["default"] == "off"
    assert proxy["properties"]["max_failures"] == {"type": "integer", "minimum": 1, "default": 3}
    assert schema["properties"]["ports"]["required"] == ["client", "primary", "secondary"]


def test_the_schema_tells_backends_apart_by_name() -> None:
    backends = {backend["title"]: backend for backend in json_schema()["properties"]["checkpointer"]["oneOf"]}
    command, null = backends["command"], backends["null"]
    assert command["properties"]["backend"] == {"const": "command"}
    assert command["required"] == ["backend", "checkpoint"]
    assert null["properties"] == {
        "backend": {"const": "null"},
        "assume_deterministic": {"type": "boolean", "default": False},
    }
    assert null["required"] == []


def test_a_backend_that_cannot_be_imported_is_not_in_the_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "broken-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[colo_compare.checkpointers]\nbroken = no_such_module:Backend\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "broken" in checkpointer_names()
    titles = [backend["title"] for backend in json_schema()["properties"]["checkpointer"]["oneOf"]]
    assert {"command", "null"} <= set(titles)
    assert "broken" not in titles


def test_the_schema_is_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(json_schema())) == json_schema()


@pytest.mark.parametrize("value", [object(), 1j])
def test_what_toml_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        toml_value(value)
