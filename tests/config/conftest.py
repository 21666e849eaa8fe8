from collections.abc import Callable
from pathlib import Path

import pytest

from colo_compare.config import Config, load_config

PORTS = """
[ports]
client = "packet:eth0"
primary = "packet:tap-pri"
secondary = "packet:tap-sec"
"""
COMMAND = """
[checkpointer]
backend = "command"
checkpoint = ["/usr/bin/true"]
"""

Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Give a function that loads a text and an environment."""

    def load(text: str, **environ: str) -> Config:
        path = tmp_path / "colo.toml"
        path.write_text(text)
        return load_config(path, environ)

    return load


@pytest.fixture
def pair(load: Load) -> Load:
    """Give a function that loads what it gets beside three ports and a checkpointer."""

    def pair(text: str = "", **environ: str) -> Config:
        return load(text + PORTS + COMMAND, **environ)

    return pair
