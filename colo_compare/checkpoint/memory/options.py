"""What an operator says to the `memory` backend."""

from typing import Annotated, Literal

import msgspec

from colo_compare.checkpoint.memory.endpoint import Endpoint
from colo_compare.checkpoint.memory.guest_control import AUTO
from colo_compare.errors import ConfigError
from colo_compare.quantities import Duration, Size


class MemoryOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of the `memory` backend."""

    primary: Annotated[str, msgspec.Meta(min_length=1)]  # path of the primary guest's control socket
    secondary: Annotated[str, msgspec.Meta(min_length=1)]  # endpoint where the secondary's receiver listens
    channels: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    presend_rate: Size = Size(64 << 20)  # bytes a second between checkpoints; 0B: none
    presend_interval: Duration = Duration(0.02)  # between two looks at the tracker
    compression: Annotated[int, msgspec.Meta(ge=0, le=9)] = 0  # zlib's level; 0: none
    page_checksums: bool | Literal["auto"] = AUTO  # auto: over plain TCP
    tracker: Literal["auto", "pagemap", "compare"] = AUTO
    timeout: Duration = Duration(3)  # of each answer of a guest, and of the secondary's end
    reconnect_timeout: Duration = Duration(2)  # then the secondary is lost
    tls_dir: str = ""  # with ca-cert.pem, client-cert.pem and client-key.pem


def endpoint_of(options: MemoryOptions) -> Endpoint:
    """Give the secondary's endpoint. Raises ConfigError for options that cannot be meant."""
    for key in ("presend_interval", "timeout", "reconnect_timeout"):
        if not getattr(options, key):
            raise ConfigError(f"$.checkpointer.{key}", "must be longer than 0s")
    try:
        return Endpoint(options.secondary, options.tls_dir)
    except ValueError as error:
        raise ConfigError("$.checkpointer.secondary", str(error)) from None
