"""Frame ports: where frames come from and go to. Each is made from its URL; see `ports.url` for the forms."""

from colo_compare.ports.dgram import DgramPort
from colo_compare.ports.fault import FaultPort
from colo_compare.ports.memory import NamedMemoryPort
from colo_compare.ports.packet import PacketPort
from colo_compare.ports.pcap_port import PcapReadPort, PcapWritePort
from colo_compare.ports.port import FramePort
from colo_compare.ports.stream import StreamPort
from colo_compare.ports.tap import TapPort
from colo_compare.ports.tracer import TracerPort
from colo_compare.ports.url import (
    DgramTarget,
    MemoryTarget,
    PacketTarget,
    PcapTarget,
    StreamTarget,
    TapTarget,
    Target,
    parse_port_url,
)

__all__ = ["FramePort", "open_port"]


def open_port(url: str) -> FramePort:
    """Make the port that a URL describes; open it with ``async with`` (or `FramePort.open`).

    Raises ValueError (see `ports.url.parse_port_url`).
    """
    parsed = parse_port_url(url)
    port = _make(url, parsed.target)
    if parsed.fault_receive is not None or parsed.fault_send is not None:
        port = FaultPort(port, parsed.fault_receive, parsed.fault_send)
    if parsed.trace is not None:
        port = TracerPort(port, parsed.trace)  # outermost: it shows what the proxy sees
    return port


def _make(url: str, target: Target) -> FramePort:
    match target:
        case PacketTarget(interface, vnet_hdr):
            return PacketPort(url, interface, vnet_hdr)
        case TapTarget(interface, vnet_hdr, multi_queue):
            return TapPort(url, interface, vnet_hdr, multi_queue)
        case StreamTarget(address, listen, vnet_hdr, reconnect):
            return StreamPort(url, address, listen, vnet_hdr, reconnect)
        case DgramTarget(path, peer):
            return DgramPort(url, path, peer)
        case PcapTarget(path, write):
            return PcapWritePort(url, path) if write else PcapReadPort(url, path)
        case MemoryTarget(name):
            return NamedMemoryPort(url, name)
