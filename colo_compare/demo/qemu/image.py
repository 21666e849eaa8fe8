"""The guests' kernel and initramfs, made of Debian's packages and a little C; kept for the next run.

Nothing is installed: the packages are downloaded by apt-get, which needs no privilege, and unpacked by
dpkg-deb. The kernel is the one that Debian makes for virtual machines, the programs are busybox and
`services.c`, linked statically (with OpenSSL's libraries where TLS is wanted).
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
from typing import Final

from colo_compare.errors import SetupError

HERE: Final = Path(__file__).parent
QEMU: Final = "qemu-system-x86_64"
# In the order in which they can be loaded.
MODULES: Final = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_blk",
)
APPLETS: Final = ("cat", "grep", "head", "httpd", "insmod", "ip", "md5sum", "mount", "nc", "sh", "sleep")
# What the two guests answer differently by nature: a digest of their clocks and interrupts. (Random numbers
# would not do: the generator's state is copied, so for a while both guests draw the same ones.)
DIFFERENT: Final = "#!/bin/sh\ncat /proc/timer_list /proc/interrupts | md5sum | head -c 32\n"
PAGE: Final = b"a page of the guests\n"
BULK_LINES: Final = 1 << 18
BULK: Final = b"".join(b"line %010d\n" % number for number in range(BULK_LINES))  # 4 MiB

_PROGRAMS: Final = {
    QEMU: "qemu-system-x86",
    "cc": "build-essential",
    "apt-get": "apt",
    "apt-cache": "apt",
    "dpkg-deb": "dpkg",
}
_TLS_PROGRAMS: Final = {"openssl": "openssl"}
_LIBRARIES: Final = "root/usr/lib/x86_64-linux-gnu"


@dataclass(frozen=True)
class Image:
    """What a guest is started from, and how; `shim` is the library that QEMU needs under TCG."""

    kernel: Path
    initramfs: Path
    shim: Path
    accelerator: str = "tcg"  # or "kvm"


def image(*, tls: bool = False) -> Image:
    """Give the image, made if need be. `tls`: with HTTP behind TLS.

    Raises SetupError where it cannot be made.
    """
    for program, package in {**_PROGRAMS, **(_TLS_PROGRAMS if tls else {})}.items():
        if shutil.which(program) is None:
            raise SetupError(f"{program} is not installed: sudo apt-get install {package}")
    recipe = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(HERE.glob("*.[cs]*"))))
    recipe.update(Path(__file__).read_bytes() + bytes([tls]))
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "colo-compare"
    directory = cache / f"guest-{recipe.hexdigest()[:16]}"
    if not directory.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            made = Path(scratch, "made")
            made.mkdir()
            _make(Path(scratch), made, tls=tls)
            made.rename(directory)
    return Image(directory / "vmlinuz", directory / "initramfs.gz", directory / "shim.so")


def _make(scratch: Path, made: Path, *, tls: bool) -> None:
    depends = _run(scratch, "apt-cache", "depends", "linux-image-cloud-amd64")
    kernel = re.search(r"Depends: (linux-image-\S+)", depends)
    if kernel is None:
        raise SetupError(
            "the package linux-image-cloud-amd64 is not known here: run `apt-get update` on a Debian"
        )
    _run(scratch, "apt-get", "download", "busybox-static", kernel[1], *(["libssl-dev"] if tls else []))
    for package in scratch.glob("*.deb"):
        _run(scratch, "dpkg-deb", "-x", package, "root")
    _run(scratch, "cc", "-shared", "-fPIC", "-O2", "-Wall", "-o", made / "shim.so", HERE / "shim.c", "-ldl")
    build: list[str | Path] = ["cc", "-static", "-pthread", "-O2", "-Wall", "-Wextra", "-o", "services"]
    build.append(HERE / "services.c")
    if tls:
        build += ["-DWITH_TLS", "-Iroot/usr/include", "-Iroot/usr/include/x86_64-linux-gnu"]
        build += [f"-L{_LIBRARIES}", "-lssl", "-lcrypto"]
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        _run(scratch, "openssl", "req", "-x509", "-nodes", *curve, "-subj", "/CN=guest", "-days", "3650",
             "-keyout", "key.pem", "-out", "certificate.pem")  # fmt: skip
    _run(scratch, *build)
    (vmlinuz,) = scratch.glob("root/boot/vmlinuz-*")
    shutil.copyfile(vmlinuz, made / "vmlinuz")
    archive = b"".join(_archive(scratch))
    (made / "initramfs.gz").write_bytes(gzip.compress(archive, compresslevel=6))


def _run(directory: Path, *command: str | Path) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or ["it said nothing"]
        raise SetupError(f"the guests' image cannot be made: {command[0]} failed: {words[-1]}")
    return done.stdout


def _archive(scratch: Path) -> Iterator[bytes]:
    """Give a cpio archive in the "newc" form (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    for directory in ("bin", "dev", "etc", "modules", "proc", "sys", "www"):
        yield _entry(directory, stat.S_IFDIR | 0o755)
    yield _entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    yield _entry("init", stat.S_IFREG | 0o755, (HERE / "init.sh").read_bytes())
    yield _entry("bin/busybox", stat.S_IFREG | 0o755, (scratch / "root/bin/busybox").read_bytes())
    for applet in APPLETS:
        yield _entry(f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox")
    yield _entry("bin/services", stat.S_IFREG | 0o755, (scratch / "services").read_bytes())
    yield _entry("bin/different", stat.S_IFREG | 0o755, DIFFERENT.encode())
    pem = b"".join(path.read_bytes() for path in sorted(scratch.glob("*.pem")))
    yield _entry("etc/tls.pem", stat.S_IFREG | 0o600, pem)
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
