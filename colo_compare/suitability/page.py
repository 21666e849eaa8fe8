"""A verdict as one HTML page that needs nothing else: plots are SVG in it, and nothing runs."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from colo_compare.suitability.survey import PARTS
from colo_compare.suitability.verdict import DOES_NOT, PARTLY, SUITS, UNKNOWN, Verdict
from colo_compare.suitability.words import facts, span, tables

_MARKS: Final = {SUITS: "✓", PARTLY: "◐", DOES_NOT: "✕", UNKNOWN: "?"}
_WIDTH: Final = 720
_HEIGHT: Final = 150
_FOOT: Final = 20
_HEAD: Final = 16
_BARS: Final = 8  # causes that the plot shows
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"  # not even this page may load anything

_STYLE: Final = """
:root { color-scheme: light dark; --paper: #f6f7f9; --card: #fff; --ink: #1a1f26; --soft: #566070;
  --line: #d5dae2; --bar: #1857b8; --good: #0b6b3a; --bad: #a11822; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161c; --card: #1b212a; --ink: #e8ecf2;
  --soft: #a3adbb; --line: #36404d; --bar: #85b4ff; --good: #6bd69b; --bad: #ff9a94; } }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
section, header { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: 1rem; margin: 1rem 0; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1rem; margin: 0 0 .6rem; }
.suits h1 { color: var(--good); } .does_not h1 { color: var(--bad); }
ul { margin: 0; padding-left: 1.2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dt, footer, figcaption { color: var(--soft); } dd { margin: 0; } figure { margin: 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; width: 100%; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; } td { font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
svg rect { fill: var(--bar); } svg line { stroke: var(--line); }
footer { font-size: .875rem; }
"""


def as_html(verdict: Verdict, made: str) -> str:
    """Give the page. `made`: what is said of its making, at its foot."""
    return "\n".join(_lines(verdict, made))


def _lines(verdict: Verdict, made: str) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield f"<title>{escape(verdict.headline.lower())}</title>\n<style>{_STYLE}</style>\n</head>\n<body>"
    yield f'<header class="{verdict.grade}"><h1>{_MARKS[verdict.grade]} {escape(verdict.headline)}</h1>'
    yield from _list(verdict.reasons)
    yield "</header>"
    yield '<section aria-label="Figures"><dl>'
    yield from (f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in facts(verdict))
    yield "</dl></section>"
    yield from _plots(verdict)
    for title, header, rows in tables(verdict):
        yield from _table(title, header, rows)
    if verdict.advice:
        yield "<section><h2>What would help</h2>"
        yield from _list(verdict.advice)
        yield "</section>"
    yield f"<footer>{escape(made)}</footer>\n</body>\n</html>"


def _list(lines: Sequence[str]) -> Iterator[str]:
    yield "<ul>"
    yield from (f"<li>{escape(line)}</li>" for line in lines)
    yield "</ul>"


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    yield f'<section><h2>{escape(title.capitalize())}</h2><div class="scroll"><table>'
    yield f"<thead><tr>{head}</tr></thead><tbody>"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
    yield "</tbody></table></div></section>"


def _plots(verdict: Verdict) -> Iterator[str]:
    survey = verdict.survey
    if survey.checkpoints:
        part = survey.seconds / PARTS
        marks = {0: "0", PARTS // 2: span(survey.seconds / 2), PARTS - 1: span(survey.seconds)}
        yield from _plot(
            "Checkpoints that would have been asked for",
            f"A bar for each {span(part)}; the highest is {max(survey.parts)}, the sum {survey.checkpoints}",
            survey.parts,
            marks,
            [f"{count} at {span(i * part)}" for i, count in enumerate(survey.parts)],
        )
        yield from _causes(verdict)
    waited = sum(survey.hold.counts)
    if waited:
        bounds = [*map(span, survey.hold.bounds), "more"]
        yield from _plot(
            "How long the primary's frames would have waited",
            f"{waited} frames that had to wait; each bar up to twice as long as the one before it",
            survey.hold.counts,
            {i: bounds[i] for i in range(1, len(bounds), 3)},
            [f"{count} up to {bound}" for count, bound in zip(survey.hold.counts, bounds, strict=True)],
        )


def _plot(
    title: str, caption: str, counts: Sequence[int], marks: dict[int, str], titles: Sequence[str]
) -> Iterator[str]:
    yield f"<section><h2>{escape(title)}</h2><figure>"
    yield f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}. {escape(caption)}">'
    bar = _WIDTH / len(counts)
    base = _HEIGHT - _FOOT
    highest = max(*counts, 1)
    yield f'<line x1="0" x2="{_WIDTH}" y1="{base}" y2="{base}"/>'
    for i, count in enumerate(counts):
        tall = max((base - _HEAD) * count / highest, 2) if count else 0
        yield (
            f'<rect x="{i * bar + 1:.1f}" y="{base - tall:.1f}" width="{bar - 2:.1f}" height="{tall:.1f}">'
            f"<title>{escape(titles[i])}</title></rect>"
        )
        if count and bar > 28:
            yield _text((i + 0.5) * bar, base - tall - 3, "middle", str(count))
    for i, mark in marks.items():
        anchor = "start" if i == 0 else "end" if i == len(counts) - 1 else "middle"
        x = 0.0 if i == 0 else _WIDTH if i == len(counts) - 1 else (i + 1) * bar
        yield _text(x, _HEIGHT - 5, anchor, mark)
    yield f"</svg><figcaption>{escape(caption)}</figcaption></figure></section>"


def _causes(verdict: Verdict) -> Iterator[str]:
    """Give a bar for each of the causes that ask for most checkpoints."""
    patterns = [pattern for pattern in verdict.survey.patterns if pattern.checkpoints][:_BARS]
    row, left = 24, 260
    title = "Checkpoints by cause"
    yield f"<section><h2>{title}</h2><figure>"
    size = f"0 0 {_WIDTH} {row * len(patterns)}"
    yield f'<svg viewBox="{size}" role="img" aria-label="{title}, as in the table">'
    for i, pattern in enumerate(patterns):
        name = f"{pattern.service}, {pattern.cause.replace('_', ' ')}"
        name += f" in {pattern.field}" if pattern.field else ""
        wide = max((_WIDTH - left - 60) * pattern.checkpoints / patterns[0].checkpoints, 2)
        yield _text(left - 8, i * row + 16, "end", name)
        yield f'<rect x="{left}" y="{i * row + 5}" width="{wide:.1f}" height="14"/>'
        yield _text(left + wide + 6, i * row + 16, "start", str(pattern.checkpoints))
    yield "</svg></figure></section>"


def _text(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
