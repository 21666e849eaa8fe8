"""The house: what may import what, and that each module of wire/ and core/ has its own test file.

That this file alone covers its module is checked by .ci/coverage_by_module.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SANS_IO = {
    "wire": ("colo_compare.errors", "colo_compare.wire"),
    "core": ("colo_compare.errors", "colo_compare.wire", "colo_compare.core"),
}
MODULES = [
    path.relative_to(ROOT)
    for package in SANS_IO
    for path in sorted((ROOT / "colo_compare" / package).glob("**/*.py"))
    if path.name != "__init__.py"
]
# Clocks, chance and I/O; also what is slow to import or another licence.
FORBIDDEN = {
    "asyncio", "datetime", "multiprocessing", "os", "pathlib", "random", "secrets", "select", "selectors",
    "signal", "socket", "subprocess", "sys", "threading", "time", "trio",
    "dpkt", "msgspec", "prometheus_client", "pyroute2", "scapy",
}  # fmt: skip


def imported(path: Path) -> set[str]:
    """The full names of all modules that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            assert node.module is not None
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_there_are_modules_to_look_at() -> None:
    assert {path.parts[1] for path in MODULES} == set(SANS_IO)
    assert Path("colo_compare/wire/frame.py") in MODULES


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_each_module_has_its_own_tests(module: Path) -> None:
    _, package, name = module.parts
    tests = ROOT / "tests" / package / f"test_{name}"
    assert tests.is_file(), f"{module} has no {tests.relative_to(ROOT)}"
    assert f"colo_compare.{package}" in tests.read_text()


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_clock_and_no_io(module: Path) -> None:
    names = imported(ROOT / module)
    assert not {name for name in names if name.split(".")[0] in FORBIDDEN}
    allowed = SANS_IO[module.parts[1]]
    inside = {name for name in names if name.split(".")[0] in ("colo_compare", "tap_setup")}
    assert not {name for name in inside if not name.startswith(allowed)}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_nothing_is_opened(module: Path) -> None:
    calls = {
        node.func.id
        for node in ast.walk(ast.parse((ROOT / module).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"open", "print", "input", "exec", "eval", "__import__"}


def test_the_hot_path_never_imports_scapy() -> None:
    for path in (ROOT / "colo_compare").glob("**/*.py"):
        tree = ast.parse(path.read_text())
        top = {ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)}
        assert not {line for line in top if "scapy" in line}, (
            f"{path} imports scapy where it is loaded at start"
        )
