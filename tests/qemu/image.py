"""The guests' kernel and initramfs, made of two Debian packages and a little C; kept for the next run.

Nothing is installed: the packages are downloaded by apt-get, which needs no privilege, and unpacked by
dpkg-deb. Where QEMU, a compiler or the packages cannot be had the tests are skipped, and say why.
"""

import gzip
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
QEMU = "qemu-system-x86_64"
# In the order in which they can be loaded.
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
)
APPLETS = ("cat", "head", "httpd", "insmod", "ip", "md5sum", "mount", "nc", "sh", "sleep")
# What the two guests answer differently by nature: a digest of their clocks and interrupts. (Random numbers
# would not do: the generator's state is copied, so for a while both guests draw the same ones.)
DIFFERENT = "#!/bin/sh\ncat /proc/timer_list /proc/interrupts | md5sum | head -c 32\n"
PAGE = b"a page of the guests\n"
BULK_LINES = 1 << 18
BULK = b"".join(b"line %010d\n" % number for number in range(BULK_LINES))  # 4 MiB


@dataclass(frozen=True)
class Image:
    """What a guest is started from, and the library that QEMU needs under TCG."""

    kernel: Path
    initramfs: Path
    shim: Path


def image() -> Image:
    """Give the image, made if need be. Skips the test where it cannot be made."""
    for program in (QEMU, "cc", "apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: qemu-system-x86, gcc, libc6-dev, apt, dpkg)")
    recipe = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(HERE.glob("*.[cs]*"))))
    recipe.update(Path(__file__).read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "colo-compare"
    directory = cache / f"guest-{recipe.hexdigest()[:16]}"
    if not directory.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            made = Path(scratch, "made")
            made.mkdir()
            _make(Path(scratch), made)
            made.rename(directory)
    return Image(directory / "vmlinuz", directory / "initramfs.gz", directory / "shim.so")


def _make(scratch: Path, made: Path) -> None:
    _run(scratch, "cc", "-shared", "-fPIC", "-O2", "-Wall", "-o", made / "shim.so", HERE / "shim.c", "-ldl")
    _run(scratch, "cc", "-static", "-O2", "-Wall", "-o", "udp_echo", HERE / "udp_echo.c")
    depends = _run(scratch, "apt-cache", "depends", "linux-image-cloud-amd64")
    kernel = re.search(r"Depends: (linux-image-\S+)", depends)
    if kernel is None:
        pytest.skip("the package linux-image-cloud-amd64 is not known: run `apt-get update` on a Debian")
    _run(scratch, "apt-get", "download", "busybox-static", kernel[1])
    for package in scratch.glob("*.deb"):
        _run(scratch, "dpkg-deb", "-x", package, "root")
    (vmlinuz,) = scratch.glob("root/boot/vmlinuz-*")
    shutil.copyfile(vmlinuz, made / "vmlinuz")
    archive = b"".join(_archive(scratch))
    (made / "initramfs.gz").write_bytes(gzip.compress(archive, compresslevel=6))


def _run(directory: Path, *command: str | Path) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or ["it said nothing"]
        pytest.skip(f"the guests' image cannot be made: {command[0]} failed: {words[-1]}")
    return done.stdout


def _archive(scratch: Path) -> Iterator[bytes]:
    """Give a cpio archive in the "newc" form (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    for directory in ("bin", "dev", "modules", "proc", "sys", "www"):
        yield _entry(directory, stat.S_IFDIR | 0o755)
    yield _entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    yield _entry("dev/urandom", stat.S_IFCHR | 0o666, device=(1, 9))
    yield _entry("dev/null", stat.S_IFCHR | 0o666, device=(1, 3))
    yield _entry("init", stat.S_IFREG | 0o755, (HERE / "init.sh").read_bytes())
    yield _entry("bin/busybox", stat.S_IFREG | 0o755, (scratch / "root/bin/busybox").read_bytes())
    for applet in APPLETS:
        yield _entry(f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox")
    yield _entry("bin/udp_echo", stat.S_IFREG | 0o755, (scratch / "udp_echo").read_bytes())
    yield _entry("bin/different", stat.S_IFREG | 0o755, DIFFERENT.encode())
    yield _entry("modules/order", stat.S_IFREG | 0o644, " ".join(MODULES).encode())
    for module in MODULES:
        (found,) = scratch.glob(f"root/lib/modules/*/kernel/**/{module}.ko")
        yield _entry(f"modules/{module}.ko", stat.S_IFREG | 0o644, found.read_bytes())
    yield _entry("www/index.html", stat.S_IFREG | 0o644, PAGE)
    yield _entry("www/bulk", stat.S_IFREG | 0o644, BULK)
    yield _entry("TRAILER!!!", 0)


def _entry(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    path = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
