"""The states of a session's two ends, drawn in `outgoing` and `incoming`."""

from typing import Final

from colo_compare.checkpoint.memory.messages import Message

AT_GREETING: Final = "greeting"
AT_IDLE: Final = "idle"
AT_REQUESTED: Final = "requested"
AT_READY: Final = "ready"
AT_SYNCED: Final = "synced"
AT_RECEIVED: Final = "received"
AT_APPLYING: Final = "applying"
AT_APPLIED: Final = "applied"
AT_RESUMING: Final = "resuming"
AT_ENDING: Final = "ending"
AT_ENDED: Final = "ended"
AT_BROKEN: Final = "broken"

Sends = list[tuple[int, Message]]
"""Messages, each with the channel that it goes out on; in order for each channel."""
