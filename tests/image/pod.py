"""A pod of the Kubernetes manifests, run by runc: as little of a kubelet as their words ask for.

What a manifest says about users, capabilities, file systems, volumes and devices becomes a configuration of
runc, with what container runtimes do by themselves: /proc/sys read-only, and a device control group in which
only the default devices (and with them /dev/net/tun) are allowed. Seccomp is left out.
"""

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

Json = dict[str, Any]

MASKED = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
# A privileged container has all capabilities. Of these, colo-tap-setup needs one: it gets no other here.
PRIVILEGED = ["CAP_NET_ADMIN"]
STANDARD_MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {
        "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    },
    {
        "destination": "/sys", "type": "sysfs", "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", "ro"],
    },
]  # fmt: skip


class Pod:
    """One pod: its volumes, and its containers' configurations."""

    def __init__(self, manifests: list[Json], image: Json, root: Path, directory: Path) -> None:
        """Take rendered manifests, the image's configuration and its root."""
        self._image = image
        self._root = root
        self._directory = directory
        self._maps = {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ConfigMap"}
        (deployment,) = [m for m in manifests if m["kind"] == "Deployment"]
        self.spec: Json = deployment["spec"]["template"]["spec"]
        self._volumes = {volume["name"]: self._make_volume(volume) for volume in self.spec["volumes"]}

    def _make_volume(self, volume: Json) -> Path:
        path = self._directory / "volumes" / str(volume["name"])
        if "hostPath" in volume:
            assert volume["hostPath"]["path"] == "/dev/net/tun"
            return tun_device(self._directory)
        path.mkdir(parents=True)
        if "configMap" in volume:
            for name, text in self._maps[volume["configMap"]["name"]].items():
                (path / name).write_text(text)
        else:
            assert "emptyDir" in volume
            os.chown(path, 0, self.spec["securityContext"]["fsGroup"])
            path.chmod(0o2777)
        return path

    def container(self, name: str, **environment: str) -> "Container":
        """Give a container of the pod, an init container too, not yet started."""
        spec = next(c for c in self.spec["initContainers"] + self.spec["containers"] if c["name"] == name)
        bundle = self._directory / name
        bundle.mkdir(exist_ok=True)
        return Container(bundle, f"{self._directory.name}-{name}", self._configure(spec, environment))

    def _configure(self, spec: Json, environment: dict[str, str]) -> Json:
        context = spec["securityContext"]
        privileged = context.get("privileged", False)
        capabilities = PRIVILEGED if privileged else []
        if not privileged:
            assert context["capabilities"] == {"drop": ["ALL"]}
        entrypoint: list[str] = spec.get("command") or self._image["Entrypoint"]
        return {
            "ociVersion": "1.0.2",
            "root": {"path": str(self._root), "readonly": context.get("readOnlyRootFilesystem", False)},
            "hostname": "pod",
            "process": {
                "user": {
                    "uid": context["runAsUser"],
                    "gid": context["runAsGroup"],
                    "additionalGids": [self.spec["securityContext"]["fsGroup"]],
                },
                "args": [*entrypoint, *spec.get("args", [])],
                "env": [*self._image["Env"], *(f"{name}={value}" for name, value in environment.items())],
                "cwd": "/",
                "noNewPrivileges": not context.get("allowPrivilegeEscalation", True),
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            },
            "mounts": STANDARD_MOUNTS + [self._mount(mount) for mount in spec["volumeMounts"]],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
                "resources": {"devices": [{"allow": privileged, "access": "rwm"}]},
                "maskedPaths": [] if privileged else MASKED,
                "readonlyPaths": [] if privileged else READ_ONLY,
                "devices": [self._tun()] if privileged else [],
            },
        }

    def _tun(self) -> Json:
        # A privileged container gets all devices of its host; this is the one that is there to be used.
        return {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o666}

    def _mount(self, mount: Json) -> Json:
        options = ["bind", "ro" if mount.get("readOnly") else "rw"]
        source = str(self._volumes[mount["name"]])
        return {"destination": mount["mountPath"], "type": "bind", "source": source, "options": options}


def tun_device(directory: Path) -> Path:
    """Give a tun device that every user may open, as nearly all hosts have it, made if need be."""
    usual = Path("/dev/net/tun")
    if usual.exists() and usual.stat().st_mode & 0o006 == 0o006:
        return usual
    node = directory / "tun"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(10, 200))
    node.chmod(0o666)
    return node


class Container:
    """A container of runc. To be ended by `close`."""

    def __init__(self, bundle: Path, name: str, config: Json) -> None:
        self.log = bundle / "log"
        self._config = config
        self._bundle = bundle
        self._name = name
        self._options = ["--root", str(bundle.parent / "runc")]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, network: str) -> None:
        """Start it in the network namespace of this path."""
        self._config["linux"]["namespaces"].append({"type": "network", "path": network})
        (self._bundle / "config.json").write_text(json.dumps(self._config))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["runc", *self._options, "run", "--bundle", str(self._bundle), self._name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait(self, limit: float = 60.0) -> int:
        """Wait until it ends and give its exit code."""
        assert self._process is not None
        return self._process.wait(limit)

    def execute(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program in it, as its own user."""
        return subprocess.run(
            ["runc", *self._options, "exec", self._name, *argv], capture_output=True, text=True, check=False
        )

    def signal(self, name: str) -> None:
        """Send its first process a signal."""
        subprocess.run(["runc", *self._options, "kill", self._name, name], check=True)

    def close(self) -> None:
        """End it if it still runs, and forget it."""
        delete = ["runc", *self._options, "delete", "--force", self._name]
        subprocess.run(delete, capture_output=True, check=False)
        if self._process is not None:
            self._process.wait(10)
