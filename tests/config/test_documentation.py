"""docs/configuration.md says what the tables say: every key, every default."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from colo_compare.checkpoint.registry import BUILT_IN, load_checkpointer
from colo_compare.config import Config
from colo_compare.config.tables import FIXED_TABLES
from colo_compare.quantities import encode

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
Load = Callable[..., Config]


def rows(heading: str) -> dict[str, str]:
    """Give the keys and defaults of the first table with a default below a heading."""
    section = re.split(r"^#+ ", PAGE.split(f"\n{heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    table = section.split("| key | default | meaning |\n|---|---|---|\n")[1].split("\n\n")[0]
    return {
        key: default.strip().strip("`")
        for key, default in re.findall(r"^\| `(\w+)` \|([^|]*)\| [^|]*\w[^|]*\|$", table, re.MULTILINE)
    }


def defaults(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Give the keys and defaults of a table as TOML."""
    texts: dict[str, str] = {}
    for field in msgspec.structs.fields(kind):
        default: Any = field.default_factory() if callable(field.default_factory) else field.default
        texts[field.name] = "" if field.required else msgspec.json.encode(default, enc_hook=encode).decode()
    return texts


@pytest.mark.parametrize("table", FIXED_TABLES)
def test_every_key_of_a_table_is_described_with_its_default(table: str) -> None:
    assert rows(f"## [{table}]") == defaults(FIXED_TABLES[table])


@pytest.mark.parametrize("backend", BUILT_IN)
def test_every_option_of_a_backend_is_described_with_its_default(backend: str) -> None:
    assert rows(f"### {backend}") == defaults(load_checkpointer(backend).Options)


def test_the_default_backend_is_described(load: Load) -> None:
    ports = '[ports]\nclient = "packet:a"\nprimary = "packet:b"\nsecondary = "packet:c"\n'
    config = load(ports, COLO_COMPARE_PROXY__MODE="bypass")
    assert rows("## [checkpointer]") == {"backend": json.dumps(config.checkpointer.backend)}


def test_the_complete_example_is_a_configuration(load: Load) -> None:
    example = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]
    assert set(tomllib.loads(example)) == {*FIXED_TABLES, "checkpointer"}
    config = load(example)
    assert config.make_checkpointer().capabilities.can_promote


def test_the_examples_of_the_environment_are_right(load: Load) -> None:
    example = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]
    variables = re.findall(r"^(COLO_COMPARE_\w+)=('[^']*'|\S+) colo-compare run", PAGE, re.MULTILINE)
    assert len(variables) == 2
    config = load(example, **{name: value.strip("'") for name, value in variables})
    assert config.proxy.mode == "observe"
    assert msgspec.structs.asdict(config.checkpointer.options)["checkpoint"] == ("/bin/checkpoint", "--fast")


def test_the_example_of_a_mistake_is_right(load: Load) -> None:
    message = re.findall(r"^```\n(\$.*?)\n```", PAGE, re.MULTILINE | re.DOTALL)[0]
    with pytest.raises(Exception, match=re.escape(message)):
        load('[proxy]\ncompare_timout = "2s"\n')
