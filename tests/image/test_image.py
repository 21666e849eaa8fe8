"""What is in the image, and what it says of itself."""

import subprocess
from pathlib import Path
from typing import Any

import colo_compare
from tests.image.build import BASE, ROOT, Store

Json = dict[str, Any]


def test_runs_as_nobody_in_particular(image: Json) -> None:
    assert image["User"] == "65532:65532"


def test_runs_the_daemon(image: Json) -> None:
    assert image["Entrypoint"] == ["colo-compare"]
    assert image["Cmd"] == ["run", "-c", "/etc/colo-compare/pair.toml"]


def test_labels(image: Json) -> None:
    prefix = "org.opencontainers.image."
    labels = {name.removeprefix(prefix): value for name, value in image["Labels"].items() if prefix in name}
    assert labels["title"] == "colo-compare"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["version"] == colo_compare.__version__
    assert labels["revision"] == "0123456"


def test_is_checked(image: Json) -> None:
    assert image["Healthcheck"]["Test"][0] == "CMD"


def test_nothing_of_this_machine_is_in_it(store: Store, image: Json, root: Path) -> None:
    assert not (root / "etc/pip.conf").exists()
    assert not any("PIP" in variable for variable in image["Env"])


def test_has_no_tools_of_the_build(root: Path) -> None:
    for name in ("usr/bin/gcc", "src", "builder", "wheels", "opt/colo-compare/bin/pip"):
        assert not (root / name).exists(), name


def test_has_what_is_not_python(root: Path) -> None:
    """Whatever file of the packages is neither source nor cache must have come with the wheel."""
    (installed,) = (root / "opt/colo-compare/lib").glob("python3*/site-packages")
    for package in ("colo_compare", "tap_setup"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and path.suffix not in {".pyc", ".so"} and path.name != "_batch.c":
                assert (installed / path.relative_to(ROOT)).is_file(), path


def test_is_compiled(root: Path) -> None:
    (installed,) = (root / "opt/colo-compare/lib").glob("python3*/site-packages")
    assert list((installed / "colo_compare/core").glob("proxy.*.so"))


def test_is_small(store: Store, root: Path) -> None:
    """Above its base, which is not ours to choose; a dependency that weighs as much as all others shows."""
    with store.root(BASE) as base:
        megabytes = (size(root) - size(base)) / 1e6
    assert 5 < megabytes < 60


def size(root: Path) -> int:
    done = subprocess.run(["du", "-sb", str(root)], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])
