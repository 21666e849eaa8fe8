import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from colo_compare.checkpoint import registry
from colo_compare.checkpoint.command import CommandCheckpointer
from colo_compare.checkpoint.null import NullCheckpointer
from colo_compare.checkpoint.registry import checkpointer_names, load_checkpointer
from colo_compare.errors import CheckpointerError

BACKENDS = """
from colo_compare.checkpoint.null import NullCheckpointer

class Mine(NullCheckpointer):
    pass

text = "no class"
"""


class Packages:
    """Installs packages: a module and the metadata that names entry points."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def install(self, name: str, entry_points: str, module: str = BACKENDS) -> None:
        (self._directory / f"{name}_checkpointers.py").write_text(module)
        metadata = self._directory / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{entry_points}\n")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Packages]:
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    yield Packages(tmp_path)
    for name in set(sys.modules) - known:
        if name.endswith("_checkpointers"):
            del sys.modules[name]


def test_the_built_in_backends_are_always_there() -> None:
    assert load_checkpointer("null") is NullCheckpointer
    assert load_checkpointer("command") is CommandCheckpointer
    assert {"null", "command"} <= set(checkpointer_names())


def test_a_package_brings_a_backend(packages: Packages) -> None:
    packages.install("alpha", "mine = alpha_checkpointers:Mine")
    assert load_checkpointer("mine").__name__ == "Mine"
    assert "mine" in checkpointer_names()


def test_a_package_cannot_shadow_a_built_in(packages: Packages) -> None:
    packages.install("alpha", "null = alpha_checkpointers:Mine")
    assert load_checkpointer("null") is NullCheckpointer


def test_an_unknown_name_is_answered_with_the_known_ones(packages: Packages) -> None:
    packages.install("alpha", "mine = alpha_checkpointers:Mine")
    with pytest.raises(
        CheckpointerError,
        match='no checkpointer "qemuu" is installed; known: command, memory, mine, null, qemu',
    ):
        load_checkpointer("qemuu")


def test_a_name_that_two_packages_offer_is_refused(packages: Packages) -> None:
    packages.install("alpha", "mine = alpha_checkpointers:Mine")
    packages.install("beta", "mine = beta_checkpointers:Mine")
    message = (
        'checkpointer "mine" is offered more than once: alpha_checkpointers:Mine, beta_checkpointers:Mine'
    )
    with pytest.raises(CheckpointerError, match=message):
        load_checkpointer("mine")


@pytest.mark.parametrize(
    ("entry_point", "module", "message"),
    [
        (
            "alpha_checkpointers:None_",
            BACKENDS,
            "AttributeError: module 'alpha_checkpointers' has no attribute",
        ),
        ("no_such_module:Mine", BACKENDS, "ModuleNotFoundError: No module named 'no_such_module'"),
        ("alpha_checkpointers:Mine", "1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_what_cannot_be_imported_is_told_with_its_reason(
    packages: Packages, entry_point: str, module: str, message: str
) -> None:
    packages.install("alpha", f"mine = {entry_point}", module)
    with pytest.raises(
        CheckpointerError, match=re.escape(f"cannot be imported from {entry_point}: {message}")
    ):
        load_checkpointer("mine")


@pytest.mark.parametrize("attribute", ["text", "Mine.__init__"])
def test_what_is_no_checkpointer_is_refused(packages: Packages, attribute: str) -> None:
    packages.install("alpha", f"mine = alpha_checkpointers:{attribute}")
    message = f'"mine": alpha_checkpointers:{attribute} is no colo_compare.checkpoint.contract.Checkpointer'
    with pytest.raises(CheckpointerError, match=re.escape(message)):
        load_checkpointer("mine")
