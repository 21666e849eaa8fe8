"""`colo-compare demo` itself, as a person runs it."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "colo_compare", "demo"]
LEAVE = 10.0  # seconds in which everything must be gone


class Run:
    """One run of the demo, with a directory for its files and a mark on all its processes."""

    def __init__(self, tmp_path: Path, *argv: str, **environment: str) -> None:
        self.tmp = tmp_path
        self.mark = f"MARK={uuid.uuid4()}".encode()
        name, _, value = self.mark.decode().partition("=")
        self.process = subprocess.Popen(
            argv,
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT), name: value} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def marked(self) -> list[Path]:
        """Give the processes that it started, and their children."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark in (path / "environ").read_bytes().split(b"\0"):
                    found.append(path)
            except OSError:  # it ended meanwhile
                continue
        return found

    def read_until(self, text: bytes) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if text in line:
                return
        pytest.fail(f"the demo ended before it said {text!r}")

    def left(self) -> list[Path]:
        """Give the processes that are left when they had time to go."""
        end = time.monotonic() + LEAVE
        while (left := self.marked()) and time.monotonic() < end:
            time.sleep(0.01)
        return left


@pytest.mark.parametrize("guests", ["embedded", "kernel"])
def test_everything_holds_and_nothing_stays(tmp_path: Path, guests: str) -> None:
    run = Run(tmp_path, *DEMO, "--guests", guests, "--size", "24MiB")
    out, err = run.process.communicate(timeout=60)

    text = out.decode()
    assert (run.process.returncode, err) == (0, b""), text
    assert "FAILED" not in text
    assert text.count("\n   ok ") >= 10
    assert not {"\r", "\x1b"} & set(text)  # no terminal, no control codes
    assert max(map(len, text.splitlines())) <= 80
    assert run.left() == []
    assert list(tmp_path.iterdir()) == []


def test_without_curl_pythons_client_does_it(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    (programs / "setpriv").symlink_to(setpriv)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    run = Run(scratch, *DEMO, "--size", "8MiB", PATH=str(programs))
    out, err = run.process.communicate(timeout=60)

    text = out.decode()
    assert (run.process.returncode, err) == (0, b""), text
    assert "Python's http.client downloads" in text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int) -> None:
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored here, and a child inherits that")
    run = Run(tmp_path, *DEMO, "--size", "1TiB")
    run.read_until(b"downloads")

    run.process.send_signal(number)
    run.process.communicate(timeout=LEAVE)

    assert run.process.returncode == code
    assert run.left() == []
    assert list(tmp_path.iterdir()) == []


def test_killed_it_leaves_no_process(tmp_path: Path) -> None:
    run = Run(tmp_path, *DEMO, "--size", "1TiB")
    run.read_until(b"downloads")
    assert len(run.marked()) >= 6  # itself, the proxy, three guests, curl

    run.process.kill()
    run.process.communicate(timeout=LEAVE)

    assert run.left() == []


def test_it_names_the_switch_that_forbids_it() -> None:
    closed = "echo 0 > /proc/sys/user/max_user_namespaces && exec " + shlex.join([*DEMO, "--size", "1MiB"])

    tried = subprocess.run(
        ["unshare", "--user", "--map-user=1000", "--keep-caps", "sh", "-c", closed],
        cwd=ROOT, capture_output=True, check=False, text=True,
    )  # fmt: skip

    assert tried.returncode == 3
    assert "`sysctl -w user.max_user_namespaces=15000` as root" in tried.stderr
    assert len(tried.stderr.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_without_root() -> None:
    """A user namespace is enough, where an unprivileged user may make one."""
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    # It must be able to run its Python again, too: not so where that lies in root's home. Then the system's
    # may do, with the packages of this one.
    packages = os.pathsep.join((str(ROOT), sysconfig.get_path("purelib")))
    probe = (
        "import subprocess, sys; from colo_compare.demo.namespace import become_root; "
        "become_root(); subprocess.run([sys.executable, '-c', ''], check=True)"
    )
    why = b""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        tried = subprocess.run(
            [*nobody, python, "-c", probe],
            cwd=ROOT, env=os.environ | {"PYTHONPATH": packages}, capture_output=True, check=False,
        )  # fmt: skip
        why = tried.stderr.strip()
        if tried.returncode == 0:
            break
    else:
        pytest.skip(f"nobody cannot run Python or make a user namespace: {why[-200:].decode()}")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        run = Run(Path(directory), *nobody, python, *DEMO[1:], "--size", "8MiB", PYTHONPATH=packages)
        out, err = run.process.communicate(timeout=60)

        assert (run.process.returncode, err) == (0, b""), out.decode()
        assert run.left() == []
        assert list(Path(directory).iterdir()) == []
