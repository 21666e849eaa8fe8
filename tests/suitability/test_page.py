from html.parser import HTMLParser

import pytest

from colo_compare.suitability.page import as_html
from colo_compare.suitability.verdict import judge
from tests.suitability.facts import survey

VOID = {"meta"}


class Page(HTMLParser):
    """Reads a page: its words and elements. Fails where an element is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize(
    ("checkpoints", "heading"),
    [(0, "✓ SUITS COLO"), (50, "◐ SUITS COLO WITH RESERVATIONS"), (500, "✕ DOES NOT SUIT COLO")],
)
def test_the_answer_and_its_plots(checkpoints: int, heading: str) -> None:
    page = Page(as_html(judge(survey(checkpoints)), "made today"))
    assert heading in page.words
    assert "made today" in page.words
    assert len(page.named("svg")) == (3 if checkpoints else 1)
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.named("svg"))


def test_it_needs_nothing_else() -> None:
    page = Page(as_html(judge(survey(500)), ""))
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "img", "iframe"})
    assert not [
        value for _, attributes in page.elements for value in attributes.values() if value and "//" in value
    ]
    assert "default-src 'none'; style-src 'unsafe-inline'" in [
        meta.get("content") for meta in page.named("meta")
    ]


def test_what_comes_from_outside_is_text() -> None:
    found = survey(500, field="<script>alert(1)</script>")
    text = as_html(judge(found), "")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_bars_are_as_tall_as_what_they_count() -> None:
    found = survey(500)
    found.parts = [100, 50, 0, *[0] * (len(found.parts) - 3)]
    bars = Page(as_html(judge(found), "")).named("rect")[: len(found.parts)]
    heights = [float(bar["height"] or "") for bar in bars[:3]]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2)
    assert heights[2] == 0
