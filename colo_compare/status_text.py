"""A status as text for people. Apart from `status`, so that the command need not import the daemon."""

from typing import Any


def render(status: dict[str, Any]) -> str:
    """Give a status as text: the verdict first, then one line for each part."""
    verdict = "PROTECTED" if status["protected"] else f"UNPROTECTED: {status['why']}"
    held = status["held"]
    checkpoint = status["checkpoint"]
    backend = status["checkpointer"]
    counters = status["counters"]
    build = "compiled" if status["compiled"] else "plain Python"
    lines = [
        verdict + "".join(f", {word}" for word in ("draining", "stopping") if status[word]),
        f"mode          {status['mode']}, up {status['uptime']:.0f} s, version {status['version']} ({build})",
        f"epoch         {status['epoch']}, {checkpoint['state']}",
        f"last          {_last(checkpoint['last'])}{_pairs(checkpoint['figures'], '; ')}",
        f"checkpoints   {_pairs(counters['checkpoints'])}",
        f"requests      {_pairs(_not_zero(counters['requests'])) or 'none'}",
        f"divergences   {_pairs(_not_zero(counters['divergences'])) or 'none'}",
        f"held          {held['frames']} frames, {held['bytes']} bytes, up to {held['oldest']:.3f} s",
        f"released      {_pairs(_not_zero(counters['released'])) or 'none'}",
        f"flows         {_pairs(_not_zero(status['flows'])) or 'none'}",
        f"checkpointer  {backend['backend']}, {_backend(backend)}{_pairs(backend['figures'], ', ')}",
    ]
    if status["promoted"]:
        lines.append(f"promoted      {status['promoted']}")
    if status["joining"]:
        joining = status["joining"]
        lines.append(f"joining       a new secondary, port {joining['port']}, for {joining['seconds']:.0f} s")
    lines += [_port_line(name, port) for name, port in status["ports"].items()]
    return "\n".join(lines)


def _last(checkpoint: dict[str, Any]) -> str:
    """Tell of the last checkpoint, and of what it was made for."""
    if not checkpoint:
        return "no checkpoint yet"
    return (
        f"{', '.join(checkpoint['reasons'])}, committed {checkpoint['seconds_ago']:.1f} s ago"
        f" in {checkpoint['request_to_commit'] * 1000:.1f} ms, released {checkpoint['released']}"
    )


def _backend(backend: dict[str, Any]) -> str:
    if backend["ended"]:
        return f"ended: {backend['ended']}"
    return "ready" if backend["ready"] else "not ready"


def _port_line(name: str, port: dict[str, Any]) -> str:
    line = (
        f"{name:<13} {port['url']} as {port['role']}, {'connected' if port['connected'] else 'not connected'}"
    )
    line += f", in {port['received_frames']}, out {port['sent_frames']}"
    shown = ("backlog", "dropped", "dropped_receive", "dropped_send", "resets")
    line += "".join(f", {key} {port[key]}" for key in shown if port[key])
    if port["held_back"]:
        line += ", held back"
    if port["failure"]:
        line += f", lost: {port['failure']}"
    return line


def _not_zero(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _pairs(values: dict[str, Any], before: str = "") -> str:
    return before + ", ".join(f"{name} {value}" for name, value in values.items()) if values else ""
