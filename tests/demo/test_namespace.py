import subprocess
import sys
from pathlib import Path

import pytest

import colo_compare
from colo_compare.demo.namespace import Namespace
from colo_compare.errors import SetupError


def test_a_python_finds_this_very_package_wherever_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "colo_compare").mkdir()
    (tmp_path / "colo_compare" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    try:
        namespace = Namespace("here")
    except SetupError as error:
        pytest.skip(str(error))
    try:
        command = [sys.executable, "-c", "import colo_compare; print(colo_compare.__file__)"]
        process = namespace.start(command, stdout=subprocess.PIPE)
        assert process.communicate()[0].decode().strip() == colo_compare.__file__
    finally:
        namespace.close()
