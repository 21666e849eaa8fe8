import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from colo_compare.checkpoint.command import CommandOptions
from colo_compare.config import Config, load_config, runtime_changes
from colo_compare.core.settings import Settings
from colo_compare.errors import ConfigError

Load = Callable[..., Config]


def command_options(config: Config) -> CommandOptions:
    options = config.checkpointer.options
    assert isinstance(options, CommandOptions)
    return options


PORTS = '[ports]\nclient = "packet:eth0"\nprimary = "packet:tap-pri"\nsecondary = "packet:tap-sec"\n'


def test_a_whole_file_is_read(load: Load) -> None:
    config = load(
        """
        [proxy]
        mode = "protect"
        mirror = true
        rewrite = true
        compare_timeout = "3s"
        coalesce = "5ms"
        min_interval = "0ms"
        max_interval = "off"
        on_secondary_loss = "block"
        max_held_bytes = "1GiB"
        max_failures = 7
        [ports]
        client = "packet:eth0"
        primary = "stream+unix:///run/pri.sock?listen=yes&vnet_hdr=yes"
        secondary = "tap:tap-sec"
        [checkpointer]
        backend = "command"
        checkpoint = ["/usr/lib/colo/checkpoint", "--fast"]
        timeout = "2s"
        [control]
        socket = "/run/colo/pair1.sock"
        mode = "0660"
        [log]
        level = "debug"
        format = "json"
        """
    )
    assert config.proxy.coalesce == 0.005
    assert config.proxy.max_interval == math.inf
    assert config.proxy.on_secondary_loss == "block"
    assert config.proxy.max_held_bytes == 1 << 30
    assert config.proxy.max_failures == 7
    assert config.ports.secondary == "tap:tap-sec"
    assert config.checkpointer.backend == "command"
    assert command_options(config).checkpoint == ("/usr/lib/colo/checkpoint", "--fast")
    assert config.control.file_mode == 0o660
    assert (config.log.level, config.log.format) == ("debug", "json")


def test_the_defaults_are_those_of_the_core(pair: Load) -> None:
    config = pair()
    capabilities = config.make_checkpointer().capabilities
    settings = config.settings(capabilities)
    assert settings == Settings(copies_state=True, reports_pause=False)
    # Compiled code holds C doubles and ints: the numbers must not come with a text of their own.
    assert {type(value) for value in vars(settings).values()} == {str, bool, int, float}


def test_a_config_is_frozen(pair: Load) -> None:
    config = pair()
    with pytest.raises(AttributeError):
        config.proxy.mode = "bypass"  # type: ignore[misc]  # the point of the test


@pytest.mark.parametrize(
    ("text", "path", "problem"),
    [
        ("[prxy]\n", "$.prxy", 'no such table; did you mean "proxy"?'),
        ('mode = "protect"\n', "$.mode", "no such table; it belongs to [proxy] or [control]"),
        ("proxy = 3\n", "$.proxy", "expected a table, got 3: write [proxy] and its keys below it"),
        ("checkpointer = 3\n" + PORTS, "$.checkpointer", "expected a table, got 3: write [checkpointer] and"),
        ('[proxy]\nmod = "protect"\n', "$.proxy.mod", 'no such key; did you mean "mode"?'),
        ('[proxy]\nlevel = "info"\n', "$.proxy.level", "no such key; it belongs to [log]"),
        (PORTS + "[log]\nzzz = 1\n", "$.log.zzz", "no such key; known: format, level"),
        ('[proxy]\nmode = "protekt"\n', "$.proxy.mode", '"protekt" is not one of'),
        ('[proxy]\nmode = "protekt"\n', "$.proxy.mode", 'did you mean "protect"?'),
        ('[proxy]\nmode = "solo"\n', "$.proxy.mode", '"solo" is not one of protect, observe, bypass'),
        ('[proxy]\nmirror = "yes"\n', "$.proxy.mirror", "expected true or false, got a string"),
        ('[proxy]\nmax_flows = "many"\n', "$.proxy.max_flows", "expected an integer, got a string"),
        ("[proxy]\nmax_flows = 0\n", "$.proxy.max_flows", "expected an integer >= 1"),
        ("[proxy]\nmode = 3\n", "$.proxy.mode", "expected a string, got an integer"),
        (
            "[proxy]\ncoalesce = 20\n",
            "$.proxy.coalesce",
            '20 has no unit: write it as text with one, like "20ms"',
        ),
        ('[proxy]\ncoalesce = "off"\n', "$.proxy.coalesce", '"off" is no duration'),
        ('[proxy]\nmax_held_bytes = "64MB"\n', "$.proxy.max_held_bytes", '"64MB" is no size'),
        (
            PORTS + '[checkpointer]\nbackend = "comand"\n',
            "$.checkpointer.backend",
            'no checkpointer "comand"',
        ),
        (PORTS + "[checkpointer]\nbackend = 3\n", "$.checkpointer.backend", "expected a string, got 3"),
        (
            PORTS + '[checkpointer]\nbackend = "command"\ncheckpoint = ["/bin/true"]\ntime_out = "3s"\n',
            "$.checkpointer.time_out",
            'no such key; did you mean "timeout"?',
        ),
        (
            PORTS + '[checkpointer]\nbackend = "command"\ncheckpoint = ["/bin/true", 3]\n',
            "$.checkpointer.checkpoint[1]",
            "expected a string, got an integer",
        ),
        (
            PORTS + '[checkpointer]\nbackend = "command"\n',
            "$.checkpointer.checkpoint",
            "is missing, and has no default",
        ),
        ('[ports]\nclient = "packet:eth0"\n', "$.ports.primary", "is missing, and has no default"),
        ("", "$.ports.client", "is missing, and has no default"),
    ],
)
def test_a_mistake_is_told_with_its_path_and_a_hint(load: Load, text: str, path: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.path == path
    assert problem in caught.value.problem
    assert "\n" not in str(caught.value)


def test_broken_toml_is_told_with_its_line(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"colo\.toml: is not TOML: .*\(at line 2, column 8\)$"):
        load('[proxy]\nmode = protect"\n')


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file or directory$"):
        load_config(tmp_path / "none.toml", {})


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "colo.toml"
    path.write_bytes(b"[proxy]\n\xff")
    with pytest.raises(ConfigError, match=r"colo\.toml: is not UTF-8 text \(byte 8\)$"):
        load_config(path, {})


def test_what_an_environment_variable_set_wrongly_is_told_with_its_name(pair: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        pair(COLO_COMPARE_PROXY__MIN_INTERVAL="2s", COLO_COMPARE_PROXY__MAX_INTERVAL="1s")
    assert caught.value.path == "$.proxy.min_interval"
    assert caught.value.problem.endswith("(set by COLO_COMPARE_PROXY__MIN_INTERVAL)")


def test_protect_without_a_checkpointer_is_refused(load: Load) -> None:
    with pytest.raises(ConfigError, match=re.escape('$.checkpointer.backend: "null" copies no state')):
        load(PORTS)
    assert load(PORTS, COLO_COMPARE_PROXY__MODE="observe").checkpointer.backend == "null"


def test_only_some_changes_need_a_restart(pair: Load) -> None:
    old = pair()
    assert runtime_changes(old, old) == []
    tuned = '[proxy]\ncompare_timeout = "1s"\nmax_flows = 70000\n[log]\nlevel = "debug"\n[control]\n'
    assert runtime_changes(old, pair(tuned)) == []
    assert runtime_changes(
        old,
        pair(
            '[proxy]\nmode = "observe"\nmirror = false\nrewrite = false\n[control]\nmode = "0660"\n',
            COLO_COMPARE_CHECKPOINTER__TIMEOUT="3s",
            COLO_COMPARE_PORTS__CLIENT="packet:eth1",
        ),
    ) == [
        "$.checkpointer.timeout",
        "$.control.mode",
        "$.ports.client",
        "$.proxy.mirror",
        "$.proxy.mode",
        "$.proxy.rewrite",
    ]


def test_another_backend_needs_a_restart(load: Load, pair: Load) -> None:
    other = load(PORTS, COLO_COMPARE_CHECKPOINTER__ASSUME_DETERMINISTIC="true")
    assert runtime_changes(pair(), other)[:2] == [
        "$.checkpointer.abandon",
        "$.checkpointer.assume_deterministic",
    ]
    assert "$.checkpointer.backend" in runtime_changes(pair(), other)
