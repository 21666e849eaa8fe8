"""Entering, making and removing named namespaces."""

import threading
from pathlib import Path

import pytest

from colo_compare.errors import SetupError
from tap_setup import namespaces
from tap_setup.namespaces import inside, make_namespace, namespace_exists, others_in, remove_namespace
from tests.tap_setup.scene import Scene, shell


def own() -> str:
    """Which network namespace the calling thread is in."""
    return str(Path("/proc/thread-self/ns/net").readlink())


def test_only_the_work_is_inside(scene: Scene) -> None:
    outside = own()
    there = inside(scene.name, scene.device, lambda _: own())
    assert there == scene.run("readlink /proc/self/ns/net").strip()
    assert there != outside == own()
    assert inside(None, scene.device, lambda _: own()) == outside


def test_a_namespace_within_a_namespace(scene: Scene) -> None:
    here = inside(scene.name, scene.device, lambda _: inside(None, scene.device, lambda _: own()))
    assert here == scene.run("readlink /proc/self/ns/net").strip()


def test_no_thread_is_left(scene: Scene) -> None:
    before = threading.active_count()
    inside(scene.name, scene.device, lambda host: host.names())
    assert threading.active_count() == before


def test_what_the_work_raises_comes_out(scene: Scene) -> None:
    def fail(_: object) -> None:
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        inside(scene.name, scene.device, fail)


def test_a_name_that_is_taken(scene: Scene) -> None:
    with pytest.raises(SetupError, match=f"cannot name the namespace {scene.name}: File exists"):
        make_namespace(scene.name, scene.device)
    assert namespace_exists(scene.name)
    assert scene.run("ip link show dev lo")


def test_a_name_that_cannot_be_given_leaves_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{scene.name}a"

    def break_off(name: str, thread: int) -> None:
        Path("/run/netns", name).touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(namespaces, "name_namespace", break_off)
    with pytest.raises(SetupError, match=f"cannot name the namespace {name}: No space left"):
        make_namespace(name, scene.device)
    assert not namespace_exists(name)


def test_the_mark_is_set_before_the_name(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(name: str, thread: int) -> None:
        seen.append(shell(f"nsenter --net=/proc/{thread}/ns/net ip link show dev lo"))

    monkeypatch.setattr(namespaces, "name_namespace", look)
    make_namespace(f"{scene.name}a", scene.device)
    assert "alias colo-tap-setup" in seen[0]


def test_a_fresh_namespace_holds_nothing_of_others(scene: Scene) -> None:
    assert inside(scene.name, scene.device, others_in) == []
    scene.run("ip link add name br type bridge")
    assert inside(scene.name, scene.device, others_in) == ["br"]


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(SetupError, match="cannot remove the namespace tapsetup-never: No such file"):
        remove_namespace("tapsetup-never")
