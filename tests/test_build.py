import os
import subprocess
import sys
from pathlib import Path

import pytest

from colo_compare import __version__, link, reading_on, traffic
from colo_compare.build import describe_build, is_compiled
from colo_compare.core import proxy
from colo_compare.ports import batch
from colo_compare.wire import frame, seq


def test_all_of_it_is_of_one_kind() -> None:
    suffixes = {Path(str(module.__file__)).suffix for module in (proxy, frame, link, reading_on, traffic)}
    assert suffixes == ({".so"} if is_compiled() else {".py"})
    assert batch.readable.__module__ == f"colo_compare.ports.{'_batch' if is_compiled() else 'mmsg'}"


@pytest.mark.parametrize(
    ("file", "words"), [("seq.py", "plain Python"), ("seq.cpython-311-x86_64.so", "compiled")]
)
def test_the_kind_is_that_of_the_file_which_runs(
    file: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seq, "__file__", f"/somewhere/{file}")
    assert is_compiled() is (words == "compiled")
    assert describe_build() == f"{__version__} ({words})"


def test_a_long_chain_is_freed_without_harm() -> None:
    """In a process of its own, whose allocator sees what is written outside of an object."""
    program = """
from colo_compare.core.stream import Ahead, Segment
from colo_compare.wire.frame import Frame
for _ in range(3):
    ahead = Ahead()
    for start in range(0, 2000, 2):
        ahead.add(Segment(start, start + 1, b"data", 0, Frame(bytes(100), 0), 0.0))
    del ahead
    frames = [Frame(bytes(100), 0) for _ in range(2000)]
    del frames
"""
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONMALLOC": "debug"}, check=True)
