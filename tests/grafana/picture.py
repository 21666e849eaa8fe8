"""Draws a dashboard from what its queries give, so that a person can see whether it reads well.

No Grafana is needed, and none is imitated to the last line: places, titles, units, legends, stacking, value
mappings and thresholds are taken from the dashboard's own file.
"""

from collections.abc import Callable
from math import isnan, log2, nan
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from tests.grafana.boards import BOARDS, Panel

Series = dict[str, Any]
Show = Callable[[Panel, str], list[Series]]

UNIT: Final = 0.62  # inches: the width of one of 24 columns
LINE: Final = 0.36  # inches: the height of one line of the grid
PAGE: Final = "#f4f5f5"
INK: Final = "#24292e"
FAINT: Final = "#6e7380"
COLOURS: Final = (
    "#3274d9",
    "#e0632b",
    "#37872d",
    "#8f3bb8",
    "#c4162a",
    "#b58a00",
    "#0b8a8a",
    "#7c5c3a",
    "#5a6575",
)
NAMED: Final = {"green": "#37872d", "red": "#c4162a", "orange": "#e0632b", "blue": "#3274d9", "none": INK}


def draw(board: str, show: Show, span: tuple[float, float], directory: Path) -> Path:
    """Draw one dashboard and give the file, a PNG. `span`: the Unix times that its time axes show."""
    raw = BOARDS[board]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in raw["panels"]) + 2
    with mpl.rc_context(
        {"font.size": 8, "axes.edgecolor": "#d0d3d8", "text.color": INK, "font.family": "DejaVu Sans"}
    ):
        figure = Figure(figsize=(24 * UNIT, rows * LINE), facecolor=PAGE, dpi=100)
        figure.text(0.01, 1 - 1 / rows, raw["title"], fontsize=15, weight="bold", va="center")
        figure.text(0.99, 1 - 1 / rows, raw["description"], color=FAINT, va="center", ha="right")
        for panel in raw["panels"]:
            place = panel["gridPos"]
            left, top = place["x"] / 24, 1 - (place["y"] + 2) / rows
            width, height = place["w"] / 24, place["h"] / rows
            if panel["type"] == "row":
                figure.text(0.01, top - height / 2, panel["title"], fontsize=10, weight="bold", va="center")
                continue
            _draw_panel(figure, (left, top - height, width, height), rows, Panel(board, panel), show, span)
        path = directory / f"dashboard-{board}.png"
        figure.savefig(path)
    return path


def _draw_panel(
    figure: Figure,
    box: tuple[float, float, float, float],
    rows: int,
    panel: Panel,
    show: Show,
    span: tuple[float, float],
) -> None:
    left, bottom, width, height = box
    gap_x, gap_y = 0.1 / 24, 0.12 / rows
    frame = figure.add_axes((left + gap_x, bottom + gap_y, width - 2 * gap_x, height - 2 * gap_y))
    frame.set(xticks=[], yticks=[], facecolor="white")
    figure.text(left + 3 * gap_x, bottom + height - 0.62 / rows, panel.title, weight="bold", va="center")
    results = [(target, show(panel, target["expr"])) for target in panel.raw["targets"]]
    kind = panel.raw["type"]
    if kind == "stat":
        _stat(frame, panel, results)
        return
    if kind == "table":
        _table(frame, results)
        return
    legend = 1.1 if kind == "timeseries" else 0.2
    margin = 2.2 if kind == "state-timeline" else 1.0  # columns; names are longer than numbers
    axes = figure.add_axes(
        (
            left + margin / 24,
            bottom + (0.75 + legend) / rows,
            width - (margin + (0.9 if _on_the_right(panel) else 0.25)) / 24,
            height - (2.1 + legend) / rows,
        )
    )
    {"timeseries": _lines, "heatmap": _heatmap, "state-timeline": _states}[kind](axes, panel, results)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: written(at - span[0], "s")))
    axes.set_xlim(*span)
    axes.set_xticks([span[0] + 10 * i for i in range(int(span[1] - span[0]) // 10 + 1)])
    axes.tick_params(colors=FAINT, length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _label(target: dict[str, Any], series: Series) -> str:
    label: str = target["legendFormat"]
    for name, value in series["metric"].items():
        label = label.replace("{{" + name + "}}", value)
    return label


def _overrides(panel: Panel, label: str) -> dict[str, Any]:
    return {
        prop["id"]: prop["value"]
        for override in panel.raw["fieldConfig"]["overrides"]
        if override["matcher"] == {"id": "byName", "options": label}
        for prop in override["properties"]
    }


def _on_the_right(panel: Panel) -> bool:
    return "custom.axisPlacement" in str(panel.raw["fieldConfig"]["overrides"])


def _lines(axes: Axes, panel: Panel, results: list[tuple[dict[str, Any], list[Series]]]) -> None:
    lines = [(_label(target, series), series["values"]) for target, found in results for series in found]
    # What is 0 all the time says so in one line, not in ten.
    shown = [(label, values) for label, values in lines if any(float(v) for _, v in values)] or lines[:1]
    stacked = "stacking" in panel.raw["fieldConfig"]["defaults"].get("custom", {})
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    right = axes.twinx() if _on_the_right(panel) else None
    floor: dict[float, float] = {}
    handles = []
    for number, (label, values) in enumerate(shown):
        colour = COLOURS[number % len(COLOURS)]
        on_the_right = _overrides(panel, label).get("custom.axisPlacement") == "right"
        on = right if right is not None and on_the_right else axes
        times = [at for at, _ in values]
        heights = [float(value) for _, value in values]
        bases = [floor.get(at, 0.0) for at in times] if stacked else [0.0] * len(times)
        tops = [base + height for base, height in zip(bases, heights, strict=True)]
        handles += on.plot(times, tops, color=colour, linewidth=1.2, label=label)
        on.fill_between(times, bases, tops, color=colour, alpha=0.3 if stacked else 0.07, linewidth=0)
        if stacked:
            floor |= dict(zip(times, tops, strict=True))
    heights = [float(value) for _, values in shown for _, value in values]
    lowest = min((height for height in heights if not isnan(height)), default=0.0)
    _scale(axes, panel.unit, lowest)
    if right is not None:
        _scale(right, _right_unit(panel), lowest)
        right.tick_params(colors=FAINT, length=0)
        right.spines["top"].set_visible(False)
    hidden = len(lines) - len(shown)
    columns = 4 if len(handles) <= 4 else 5
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(-0.12, -0.13),
        ncols=columns,
        frameon=False,
        fontsize=6.5,
        handlelength=1.0,
        columnspacing=0.9,
        handletextpad=0.4,
        borderaxespad=0,
        title=f"and {hidden} more that are 0" if hidden else None,
        title_fontsize=6.5,
        alignment="left",
    )


def _right_unit(panel: Panel) -> str:
    units = [
        prop["value"]
        for override in panel.raw["fieldConfig"]["overrides"]
        for prop in override["properties"]
        if prop["id"] == "unit"
    ]
    return units[0] if units else ""


def _scale(axes: Axes, unit: str, lowest: float) -> None:
    if lowest >= 0:
        low, top = axes.get_ylim()
        axes.set_ylim(0, 1.0 if low == -top else top)  # of zeros alone, as much is shown above as below
    # Binary multiples on axes of bytes, round fractions of them on all others.
    top = axes.get_ylim()[1]
    if unit == "bytes" and top > 0:
        step = 2.0 ** round(log2(top / 4))
        axes.yaxis.set_major_locator(MultipleLocator(step))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, unit)))


def _heatmap(axes: Axes, panel: Panel, results: list[tuple[dict[str, Any], list[Series]]]) -> None:
    ((_, found),) = results
    found = sorted(found, key=lambda series: float(series["metric"]["le"].replace("+Inf", "inf")))
    times = sorted({at for series in found for at, _ in series["values"]})
    table = []
    below = dict.fromkeys(times, 0.0)
    for series in found:
        now = {at: float(value) for at, value in series["values"]}
        table.append([max(now.get(at, 0.0) - below[at], 0.0) or nan for at in times])
        below |= now
    filled = [i for i, row in enumerate(table) if any(not isnan(value) for value in row)]
    first, last = max(min(filled) - 1, 0), max(filled) + 1
    edges = [*times, times[-1] + 1]
    axes.pcolormesh(edges, range(last - first + 1), table[first:last], cmap="Blues", norm="log")
    names = [series["metric"]["le"] for series in found[first:last]]
    axes.set_yticks(
        [i + 1 for i in range(0, len(names), 2)],
        [("more" if name == "+Inf" else written(float(name), "s")) for name in names[::2]],
    )


def _states(axes: Axes, panel: Panel, results: list[tuple[dict[str, Any], list[Series]]]) -> None:
    found = [(_label(target, series), series["values"]) for target, part in results for series in part]
    mapping = panel.raw["fieldConfig"]["defaults"]["mappings"][0]["options"]
    for row, (_, values) in enumerate(found):
        ends = [at for at, _ in values[1:]] + [values[-1][0] + 1]
        for (at, value), end in zip(values, ends, strict=True):
            colour = mapping[value]["color"]
            if colour != "transparent":
                axes.barh(row, end - at, left=at, height=0.7, color=NAMED[colour], alpha=0.8)
    axes.set_yticks(range(len(found)), [label for label, _ in found])
    axes.set_ylim(len(found) - 0.5, -0.5)


def _stat(frame: Axes, panel: Panel, results: list[tuple[dict[str, Any], list[Series]]]) -> None:
    ((target, found),) = results
    defaults = panel.raw["fieldConfig"]["defaults"]
    value = float(found[0]["value"][1]) if found else nan
    if panel.raw["options"]["textMode"] == "name" and found:
        text = _label(target, found[0])
    elif defaults.get("mappings") and not isnan(value):
        text = defaults["mappings"][0]["options"][f"{value:.0f}"]["text"]
    elif isnan(value):
        text = defaults.get("noValue", "no data")
    else:
        text = written(round(value, defaults.get("decimals", 12)), panel.unit)
    colour = "none"
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    mode = panel.raw["options"]["colorMode"]
    if mode == "background":
        frame.set_facecolor(NAMED[colour])
        frame.figure.texts[-1].set_color("white")
    ink = {"background": "white", "value": NAMED[colour]}.get(mode, INK)
    size = 17 if len(text) < 10 else 11
    frame.text(0.5, 0.42, text, fontsize=size, weight="bold", color=ink, ha="center", va="center")


def _table(frame: Axes, results: list[tuple[dict[str, Any], list[Series]]]) -> None:
    ((_, found),) = results
    hidden = {"__name__", "job"}
    columns = [name for name in ("instance", "port", "mode", "role") if found and name in found[0]["metric"]]
    if "port" in columns:
        hidden.add("instance")
    columns = [name for name in columns if name not in hidden]
    for x, name in enumerate(columns):
        frame.text(0.05 + 0.45 * x, 0.76, name, color=FAINT, va="center")
        for y, series in enumerate(sorted(found, key=lambda series: str(series["metric"]))):
            frame.text(0.05 + 0.45 * x, 0.62 - 0.13 * y, series["metric"][name], va="center")


def written(value: float, unit: str) -> str:
    """Give a number with its unit, as Grafana writes it, nearly."""
    if isnan(value):
        return "none"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return _seconds(value)
    suffix = {"bytes": "B", "Bps": "B/s", "pps": " p/s", "cps": " /s"}.get(unit, "")
    base, prefixes = (1024, ("", "Ki", "Mi", "Gi")) if unit == "bytes" else (1000, ("", "k", "M", "G"))
    size, power = abs(value), 0
    while size >= base and power < len(prefixes) - 1:
        size /= base
        power += 1
    prefix = prefixes[power]
    sign = "-" if value < 0 else ""
    between = " " if suffix.startswith("B") or prefix else ""
    return f"{sign}{size:.3g}{between}{prefix}{suffix}"


def _seconds(value: float) -> str:
    for limit, factor, name in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (120.0, 1.0, "s")):
        if abs(value) < limit:
            return f"{value * factor:.3g} {name}" if value else "0 s"
    return f"{value / 60:.3g} min"
