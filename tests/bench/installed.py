"""The proxy as users have it: compiled, installed outside of the tree."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.process import ROOT

SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "colo_compare", "tap_setup")
_MARK = "COLO_BENCH_INSTALLED"  # in the environment of the process that measures


def is_running() -> bool:
    """Say whether this process runs what was installed."""
    return _MARK in os.environ


def run_again(cache: Path, module: str = "tests.bench") -> None:
    """Replace this process by one that runs the compiled proxy, built unless it was.

    Raises CalledProcessError where it cannot be built.
    """
    target = (cache / _digest()).resolve()
    if not target.exists():
        print("compiling wire and core: about a minute", flush=True)
        _install(target)
    path = os.pathsep.join((str(target), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": path, _MARK: str(target)}
    # -P: not the sources of the current directory before all others.
    os.execve(sys.executable, [sys.executable, "-P", "-m", module, *sys.argv[1:]], environment)


def _digest() -> str:
    """Give a name for the sources as they are now."""
    sha = hashlib.sha256()
    for name in SOURCES:
        top = ROOT / name
        for path in sorted([*top.rglob("*.py"), *top.rglob("*.c")]) if top.is_dir() else [top]:
            sha.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return sha.hexdigest()[:16]


def _install(target: Path) -> None:
    shutil.rmtree(target.parent, ignore_errors=True)  # what older sources were compiled to
    with tempfile.TemporaryDirectory() as directory:
        # From a copy: pip would leave its build/ in the tree.
        for name in SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, Path(directory, name))
        subprocess.run(
            [
                sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
                "--target", str(target), directory,
            ],
            env={**os.environ, "COLO_COMPARE_COMPILE": "require"},
            check=True,
        )  # fmt: skip
