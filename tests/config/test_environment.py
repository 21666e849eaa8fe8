import re
from collections.abc import Callable

import pytest

from colo_compare.checkpoint.command import CommandOptions
from colo_compare.config import Config
from colo_compare.config.environment import override, responsible_variable
from colo_compare.errors import ConfigError

Load = Callable[..., Config]


def command_options(config: Config) -> CommandOptions:
    options = config.checkpointer.options
    assert isinstance(options, CommandOptions)
    return options


def test_a_variable_beats_the_file(pair: Load) -> None:
    text = '[proxy]\nmode = "observe"\nmax_failures = 5\n'
    assert pair(text).proxy.mode == "observe"
    config = pair(text, COLO_COMPARE_PROXY__MODE="bypass")
    assert (config.proxy.mode, config.proxy.max_failures) == ("bypass", 5)


def test_text_is_taken_as_it_stands_and_all_else_as_toml(pair: Load) -> None:
    config = pair(
        COLO_COMPARE_PROXY__COALESCE="20ms",
        COLO_COMPARE_PROXY__MAX_INTERVAL="off",
        COLO_COMPARE_PROXY__MAX_FLOWS="70_000",
        COLO_COMPARE_PROXY__ANNOUNCE="false",
        COLO_COMPARE_CONTROL__MODE="0660",
        COLO_COMPARE_CHECKPOINTER__CHECKPOINT='["/bin/sync", "now"]',
        PATH="/bin",
    )
    assert config.proxy.coalesce == 0.02
    assert config.proxy.max_flows == 70000
    assert config.proxy.announce is False
    assert config.control.mode == "0660"
    assert command_options(config).checkpoint == ("/bin/sync", "now")


def test_the_backend_is_known_before_its_options_are_read(load: Load) -> None:
    config = load(
        '[ports]\nclient = "packet:a"\nprimary = "packet:b"\nsecondary = "packet:c"\n',
        COLO_COMPARE_CHECKPOINTER__ABANDON='["/bin/true"]',
        COLO_COMPARE_CHECKPOINTER__BACKEND="command",
        COLO_COMPARE_CHECKPOINTER__CHECKPOINT='["/bin/true"]',
    )
    assert command_options(config).abandon == ("/bin/true",)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "COLO_COMPARE_MODE",
            "x",
            "COLO_COMPARE_MODE: sets nothing: the form is COLO_COMPARE_<TABLE>__<KEY>, like",
        ),
        ("COLO_COMPARE_PRXY__MODE", "x", "COLO_COMPARE_PRXY__MODE: sets nothing: the form is"),
        ("COLO_COMPARE_proxy__mode", "x", "COLO_COMPARE_proxy__mode: sets nothing: the form is"),
        (
            "COLO_COMPARE_PROXY__MOD",
            "x",
            'COLO_COMPARE_PROXY__MOD: sets nothing: [proxy] has no key "mod"; did you mean "mode"?',
        ),
        (
            "COLO_COMPARE_PROXY__MODE",
            "protekt",
            (
                '$.proxy.mode: "protekt" is not one of protect, observe, bypass; did you mean "protect"? '
                "(set by COLO_COMPARE_PROXY__MODE)"
            ),
        ),
        (
            "COLO_COMPARE_PROXY__MAX_FLOWS",
            "many",
            "$.proxy.max_flows: expected an integer, got a string (set by COLO_COMPARE_PROXY__MAX_FLOWS)",
        ),
        (
            "COLO_COMPARE_CHECKPOINTER__CHECKPOINT",
            "[1]",
            (
                "$.checkpointer.checkpoint[0]: expected a string, got an integer "
                "(set by COLO_COMPARE_CHECKPOINTER__CHECKPOINT)"
            ),
        ),
        ("COLO_COMPARE_CHECKPOINTER__BACKEND", "qemuu", '$.checkpointer.backend: no checkpointer "qemuu"'),
    ],
)
def test_a_mistake_names_the_variable(pair: Load, name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        pair(**{name: value})


def test_a_table_that_is_none_is_not_overridden() -> None:
    with pytest.raises(ConfigError, match=re.escape("$.log: expected a table, got 3")):
        override({"log": 3}, {"COLO_COMPARE_LOG__LEVEL": "info"}, lambda _: {"level": str})


def test_the_file_is_not_changed_in_place() -> None:
    log = {"level": "info"}
    tables = {"log": log}
    assert override(tables, {"COLO_COMPARE_LOG__LEVEL": "debug"}, lambda _: {"level": str}) == {
        "$.log.level": "COLO_COMPARE_LOG__LEVEL"
    }
    assert tables == {"log": {"level": "debug"}}
    assert log == {"level": "info"}


def test_a_variable_answers_for_its_key_and_what_is_inside() -> None:
    responsible = {"$.log.level": "A", "$.checkpointer.checkpoint": "B"}
    assert responsible_variable("$.log.level", responsible) == "A"
    assert responsible_variable("$.checkpointer.checkpoint[0]", responsible) == "B"
    assert responsible_variable("$.log.levels", responsible) is None
