"""The image, built for real by buildah: no engine runs here, and no registry has the base image.

So a base is made from Debian's own packages under the base image's name. It has what the real one has and the
Dockerfile relies on: Python 3.11 with its headers, venv and certificates. What it cannot show: the Python of
the real one lies in /usr/local, and is smaller.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent  # where hadolint and kubectl are, which pip installs
BASE = "docker.io/library/python:3.11-slim-bookworm"
IMAGE = "localhost/colo-compare:test"
PACKAGES = "python3,python3-dev,python3-venv,ca-certificates"
LIMIT = 600.0  # seconds for one step
CERTIFICATES = Path("/etc/ssl/certs")
WAY_TO_PACKAGES = {
    "cert", "client-cert", "default-timeout", "extra-index-url", "find-links", "index-url", "proxy",
    "retries", "trusted-host",
}  # fmt: skip
# What the real base image does not have either.
EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")


class Store:
    """Where buildah keeps its images: a directory of its own, nothing of which outlives the tests."""

    def __init__(self, directory: Path) -> None:
        self._options = ["--root", str(directory / "root"), "--runroot", str(directory / "run")]

    def buildah(self, *arguments: str | Path) -> str:
        """Run buildah and give what it prints. Fails with its last words."""
        return run(["buildah", *self._options, *map(str, arguments)])

    def make_base(self) -> None:
        """Make the base image."""
        container = self.buildah("from", "scratch")
        with self._mounted(container) as root:
            options = [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED]
            options += ["--dpkgopt=force-unsafe-io", '--aptopt=Acquire::Languages "none"']
            run(["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", *options, "bookworm", str(root)])
        self.buildah("commit", "--quiet", "--rm", container, BASE)

    def build(self, pip_conf: Path) -> None:
        """Build the Dockerfile with this machine's way to packages, of which the image keeps nothing."""
        pip_conf.write_text(pip_settings())
        mounts = [CERTIFICATES, *local_indexes(pip_conf.read_text())]
        volumes = [f"--volume={path}:{path}:ro" for path in mounts if path.exists()]
        volumes.append(f"--volume={pip_conf}:/etc/pip.conf:ro")
        self.buildah(
            "bud", "--quiet", "--isolation=chroot", "--pull-never", "--format=docker", *volumes,
            f"--tag={IMAGE}", "--build-arg=REVISION=0123456", ROOT,
        )  # fmt: skip

    def config(self, image: str = IMAGE) -> dict[str, Any]:
        """Give the image's configuration, in Docker's form."""
        inspected = json.loads(self.buildah("inspect", "--type=image", image))
        config: dict[str, Any] = inspected["Docker"]["config"]
        return config

    @contextmanager
    def root(self, image: str = IMAGE) -> Iterator[Path]:
        """Give the directory that is the root of a container of this image."""
        container = self.buildah("from", "--pull-never", image)
        try:
            with self._mounted(container) as path:
                yield path
        finally:
            self.buildah("rm", container)

    @contextmanager
    def _mounted(self, container: str) -> Iterator[Path]:
        path = Path(self.buildah("mount", container))
        try:
            yield path
        finally:
            self.buildah("umount", container)


def run(argv: Sequence[str]) -> str:
    """Run a program and give what it prints. Fails with its last words."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=LIMIT)
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


def pip_settings() -> str:
    """Give pip's settings on this machine, from its files and from the environment, as one file."""
    settings = {}
    for line in run([sys.executable, "-m", "pip", "config", "list"]).splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        if key in WAY_TO_PACKAGES:
            settings[key] = value[1:-1]
    return "".join(["[global]\n", *(f"{key} = {value}\n" for key, value in settings.items())])


def local_indexes(settings: str) -> list[Path]:
    """Give the directories that pip's settings point to, whole: an index's files lie beside it."""
    found = set()
    for word in settings.split():
        url = urlparse(word)
        if url.scheme == "file" or (not url.scheme and word.startswith("/") and Path(word).is_dir()):
            found.add(Path("/", *Path(url.path).parts[1:3]))
    return sorted(path for path in found if os.access(path, os.R_OK))
