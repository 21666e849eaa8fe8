"""The configuration: TOML and environment in, one frozen, validated `Config` out.

Every mistake is a ConfigError whose path says where it is (``$.ports.primary``) and whose text says what to
write instead.
"""

from colo_compare.config.change import change, runtime_values
from colo_compare.config.checks import check_new_port
from colo_compare.config.load import load_config, runtime_changes
from colo_compare.config.options import change_options
from colo_compare.config.tables import (
    CaptureTable,
    CheckpointerTable,
    Config,
    ControlTable,
    HttpTable,
    LogTable,
    PortsTable,
    ProcessTable,
    ProxyTable,
)
from colo_compare.config.text import effective_toml, json_schema

__all__ = [
    "CaptureTable",
    "CheckpointerTable",
    "Config",
    "ControlTable",
    "HttpTable",
    "LogTable",
    "PortsTable",
    "ProcessTable",
    "ProxyTable",
    "change",
    "change_options",
    "check_new_port",
    "effective_toml",
    "json_schema",
    "load_config",
    "runtime_changes",
    "runtime_values",
]
