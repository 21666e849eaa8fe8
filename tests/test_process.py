import gc
import os
from collections.abc import Iterator

import pytest

from colo_compare.config import ProcessTable
from colo_compare.errors import ConfigError
from colo_compare.process import THRESHOLDS, prepare_process


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    thresholds, cpus = gc.get_threshold(), os.sched_getaffinity(0)
    yield
    gc.set_threshold(*thresholds)
    os.sched_setaffinity(0, cpus)


def test_every_cpu_by_default() -> None:
    before = os.sched_getaffinity(0)
    prepare_process(ProcessTable())
    assert os.sched_getaffinity(0) == before
    assert gc.get_threshold() == THRESHOLDS


def test_only_the_cpus_that_are_wanted() -> None:
    first = min(os.sched_getaffinity(0))
    prepare_process(ProcessTable(cpus=[first]))
    assert os.sched_getaffinity(0) == {first}


def test_a_cpu_that_is_not_there() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(ConfigError, match=r"\$.process.cpus: this process may not use CPU 4095: it may use"):
        prepare_process(ProcessTable(cpus=[min(before), 4095]))
    assert os.sched_getaffinity(0) == before
