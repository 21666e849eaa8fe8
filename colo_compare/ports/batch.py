"""Many messages in one call: compiled (`_batch.c`), or in plain Python where that was not built (`mmsg`)."""

try:
    from colo_compare.ports._batch import (
        MessageReader,
        MessageReceiver,
        MessageSender,
        readable,
        size_of,
        write_messages,
    )
except ImportError:
    from colo_compare.ports.mmsg import (  # type: ignore[assignment]  # the same names, for the same things
        MessageReader,
        MessageReceiver,
        MessageSender,
        readable,
        size_of,
        write_messages,
    )

__all__ = ["MessageReader", "MessageReceiver", "MessageSender", "readable", "size_of", "write_messages"]
