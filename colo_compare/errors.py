"""Everything this package raises on purpose.

::

    ColoCompareError
    ├── ConfigError                 the configuration is wrong; carries the path of the mistake
    ├── PortError                   a frame port cannot do its work
    │   ├── PortUnavailable         it cannot be opened: no such interface, no permission, address in use
    │   ├── PortClosed              it went away while running: the side behind it is lost
    │   └── FramingError            its stream is not made of frames: that link is reset
    ├── CheckpointerError           a checkpointer cannot do its work
    │   ├── CheckpointFailed        one checkpoint failed
    │   ├── PromotionFailed         a guest could not be promoted
    │   ├── ProtectionFailed        a guest that runs alone got no new secondary
    │   └── MonitorError            a virtual machine's monitor cannot be reached, or went away
    │       ├── MonitorTimeout      it does not answer
    │       └── MonitorRefused      it answered with an error
    ├── CaptureError                a capture file cannot be read or written
    ├── ControlError                no daemon answers on the control socket, or it cannot be made
    │   └── ControlRefused          the daemon answered, and said no
    └── SetupError                  taps, bridges or namespaces cannot be made, checked or removed

Messages say what happened, to what, and what to do about it, on one line: the commands print them as they
are, without a traceback.
"""


class ColoCompareError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(ColoCompareError):
    """The configuration is wrong. `path` says where (``$.ports.primary``)."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class PortError(ColoCompareError):
    """A frame port cannot do its work."""


class PortUnavailable(PortError):
    """A port cannot be opened: no such interface, no permission, address in use."""


class PortClosed(PortError):
    """A port went away while running: the side behind it is lost."""


class FramingError(PortError):
    """A stream is not made of frames. The link that carried it must be reset."""


class CheckpointerError(ColoCompareError):
    """A checkpointer cannot do its work."""


class CheckpointFailed(CheckpointerError):
    """One checkpoint failed; the message is the backend's own words."""


class PromotionFailed(CheckpointerError):
    """A guest could not be promoted."""


class ProtectionFailed(CheckpointerError):
    """A guest that runs alone got no new secondary: it runs alone as before."""


class MonitorError(CheckpointerError):
    """A virtual machine's monitor cannot be reached, or went away."""


class MonitorTimeout(MonitorError):
    """A monitor does not answer: its virtual machine may hang."""


class MonitorRefused(MonitorError):
    """A monitor answered a command with an error; the message is its own words."""


class CaptureError(ColoCompareError):
    """A capture file cannot be read or written."""


class ControlError(ColoCompareError):
    """No daemon answers on the control socket, or the socket cannot be made."""


class ControlRefused(ControlError):
    """The daemon refused a control request; the message is its own words."""


class SetupError(ColoCompareError):
    """Taps, bridges or namespaces cannot be made, checked or removed."""
