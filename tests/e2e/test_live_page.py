"""The live page in a real browser, before a real proxy with real traffic."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from colo_compare.demo import link
from colo_compare.demo.client import Connection
from colo_compare.demo.guest import ECHO_PORT
from colo_compare.demo.lab import GUEST4, Lab
from tests.e2e.browser import ENTER, ESCAPE, TAB, Browser, missing
from tests.e2e.traffic import ask

pytestmark = pytest.mark.skipif(bool(missing), reason=f"missing: {', '.join(missing)}; apt-get install them")

URL = "http://127.0.0.1:9464/page"
PICTURES = os.environ.get("PAGE_IMAGES")  # with it, pictures are made as docs/live-page.md shows them
SELDOM = 150 if PICTURES else 10  # requests for one that the guests answer differently
FEWEST = 1 if PICTURES else 5  # divergences before the page is looked at

# Takes as long as a small checkpoint does, so that the timeline has something to show.
CHECKPOINT = """\
read -r request
echo '{"event": "paused"}'
read -r drained
sleep 0.05
echo '{"event": "figures", "pause": 0.012, "bytes": 1048576, "pages": 256}'
"""

# The colours of every text that is seen, and of what is behind it.
COLOURS = """
const says = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
const seen = (e) => e.offsetParent !== null && says(e);
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)") return colour;
  }
  return "rgb(255, 255, 255)";
};
return [...document.querySelectorAll("body *")].filter(seen)
  .map((e) => [e.textContent.trim().slice(0, 30), getComputedStyle(e).color, behind(e)]);
"""

INTRUDER = """
const script = document.createElement("script");
script.textContent = "window.ran = 1";
document.body.append(script);
"""


@contextmanager
def traffic(lab: Lab) -> Iterator[None]:
    """Let a client ask all the time, now and then for what the guests answer differently."""
    over = threading.Event()

    def talk() -> None:
        # The last requests meet the end of the proxy.
        with suppress(OSError), Connection(lab.client, GUEST4, patience=5.0) as connection:
            number = 0
            while not over.wait(0.03):
                number += 1
                connection.download(1 << (13 + number % 6))
                if number % SELDOM == 0:
                    connection.request("/whoami/1000").read()
                    ask(lab, GUEST4, ECHO_PORT, [b"hello"] * 3)

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        yield
    finally:
        over.set()
        talker.join()


class Scene:
    """A lab in which everything runs, and a browser before its page."""

    def __init__(self, lab: Lab, browser: Browser) -> None:
        self.lab = lab
        self.browser = browser

    def counters(self) -> dict[str, Any]:
        counters: dict[str, Any] = self.lab.proxy.status()["counters"]
        return counters

    def open(self) -> Browser:
        """Load the page anew and give the browser when the page is alive."""
        self.browser.open(URL)
        self.browser.wait(lambda: self.browser.text("#link") == "live")
        return self.browser


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, _namespaces: None) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("page")
    program = directory / "checkpoint.sh"
    program.write_text(CHECKPOINT)
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        lab.proxy_namespace.call(link.set_up_loopback)
        lab.start(
            {
                "proxy": {"mode": "protect"},
                "checkpointer": {
                    "backend": "command", "checkpoint": ["sh", str(program)],
                    "reports_pause": True, "copies_state": False,
                },
                "http": {"listen": "127.0.0.1:9464", "page": True, "payload": True},
            }
        )  # fmt: skip
        stack.enter_context(traffic(lab))
        scene = Scene(lab, stack.enter_context(Browser(lab.proxy_namespace, directory / "browser")))
        scene.browser.look()
        scene.browser.wait(lambda: sum(scene.counters()["divergences"].values()) >= FEWEST)
        yield scene


def number(text: str) -> float:
    """Read the first number of a text of the page, with its prefix."""
    words = text.replace("\u202f", " ").split()
    factor = {"k": 1e3, "M": 1e6, "kbit/s": 1e3, "Mbit/s": 1e6}.get(words[1] if len(words) > 1 else "", 1.0)
    return float(words[0]) * factor


def test_it_tells_what_the_daemon_says(scene: Scene) -> None:
    page = scene.open()
    before = scene.counters()["released"]["matched"]
    page.wait(lambda: int(page.text("#counts td:last-child").replace(",", "")) > before)
    assert page.text("#verdict-word").endswith("PROTECTED")
    assert "mode\nprotect" in page.text("#facts")
    assert "command, ready" in page.text("#facts")
    for side in ("client", "primary", "secondary"):
        assert "✓ connected" in page.text(f"#side-{side}")
        wait_for_rate(page, side)


def wait_for_rate(page: Browser, side: str) -> None:
    page.wait(lambda: number(page.text(f"#side-{side} .rate span:nth-child(2)")) > 5)


def test_the_primary_is_as_fast_as_what_the_client_gets(scene: Scene) -> None:
    page = scene.open()
    page.wait(lambda: page.count("#side-client polyline.in-line[points*=' ']") == 1)
    shown = page.script(
        "return ['client .rate:nth-of-type(2)', 'primary .rate'].map((side) =>"
        " document.querySelector(`#side-${side} span:nth-child(3)`).textContent)"
    )
    to_client, from_primary = map(number, shown)
    assert to_client > 10_000
    assert from_primary == pytest.approx(to_client, rel=0.4)  # what is under way, and repetitions


def test_hold_times_are_those_of_the_daemon(scene: Scene) -> None:
    page = scene.open()
    page.click("#hold-ever")
    before = scene.counters()["held_releases"]
    page.wait(lambda: number(page.text("#hold-words")) * 1.05 >= before > 0)
    assert page.count("#hold rect") == 19
    assert "frames had to wait: half of them up to" in page.text("#hold-words")


def test_each_divergence_and_checkpoint_is_on_the_timeline(scene: Scene) -> None:
    page = scene.open()
    before = sum(scene.counters()["divergences"].values())
    page.wait(lambda: page.count("#timeline .divergence") > before)
    divergences, checkpoints, explained = page.script(
        "return ['#timeline .divergence', '#timeline .checkpoint', '#events button'].map((selector) =>"
        " document.querySelectorAll(selector).length)"
    )
    assert before < divergences <= sum(scene.counters()["divergences"].values())
    assert checkpoints >= before
    assert 0 < explained <= divergences


def test_a_divergence_is_explained(scene: Scene) -> None:
    page = scene.open()
    page.wait(lambda: page.count("#events button") > 0)
    page.click("#events button")
    page.wait(lambda: page.count("#explanation .bytes mark") > 0)
    words = page.text("#explanation")
    assert "with different bytes" in words
    assert "tcp 10.77.0.2:80 - 10.77.0.1:" in words
    assert "committed" in words
    marked = page.script("return [...document.querySelectorAll('.bytes mark')].map((m) => m.textContent)")
    assert {"41", "42", "A", "B"} == set(marked)  # each guest's own name
    page.click("#explanation-close")
    assert page.count("#explanation[open]") == 0


def test_with_the_keyboard_alone(scene: Scene) -> None:
    page = scene.open()
    page.wait(lambda: page.count("#events button") > 0)
    focus = "return document.activeElement.textContent"
    page.press(TAB)
    assert page.script(focus) == "the last minute"
    page.press(TAB, ENTER)
    assert page.count("#hold-ever[aria-pressed=true]") == 1
    for _ in range(5):
        if "payload" not in page.script(focus):
            page.press(TAB)
    chosen = page.script(focus)
    page.press(ENTER)
    page.wait(lambda: page.count("#explanation[open] .bytes") == 1)
    time.sleep(2.5)  # the page goes on behind the explanation, and new rows come
    page.press(ESCAPE)
    assert page.count("#explanation[open]") == 0
    assert page.script(focus) == chosen


def test_everything_has_a_name_for_those_who_do_not_see(scene: Scene) -> None:
    page = scene.open()
    page.wait(lambda: page.count("#events button") > 0)
    nodes = page.accessible()
    named = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes}
    assert {"heading", "main", "banner", "table", "image", "button"} <= {role for role, _ in named}
    nameless = {role for role, name in named if not name}
    assert not nameless & {"button", "image", "heading", "table", "link"}
    assert ("heading", "The three sides") in named
    assert page.count("#verdict[aria-live]") == 1
    assert page.script("return document.documentElement.lang") == "en"


@pytest.mark.parametrize("width", [320, 390, 1100])
def test_nothing_is_wider_than_the_screen(scene: Scene, width: int) -> None:
    page = scene.open()
    page.look(width=width, height=800, phone=width < 500)
    try:
        time.sleep(1.1)  # drawn anew once
        assert page.script("return document.documentElement.scrollWidth") <= width
        page.click("#events button")
        page.wait(lambda: page.count("#explanation .bytes mark") > 0)
        beyond = "const d = document.querySelector('dialog'); return d.scrollWidth - d.clientWidth"
        assert page.script(beyond) <= 0
    finally:
        page.look()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_word_stands_out(scene: Scene, dark: bool) -> None:
    """By WCAG 2.2, 1.4.3: a contrast of 4.5 to 1 at least."""
    page = scene.open()
    page.look(dark=dark)
    try:
        found = page.script(COLOURS)
        assert len(found) > 40
        for text, ink, paper in found:
            assert contrast(ink, paper) >= 4.5, (text, ink, paper)
        background = page.script("return getComputedStyle(document.body).backgroundColor")
        assert (luminance(background) < 0.1) is dark
    finally:
        page.look()


def channels(colour: str) -> list[float]:
    return [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]


def luminance(colour: str) -> float:
    parts = [channel / 255 for channel in channels(colour)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_nothing_comes_from_elsewhere_and_nothing_else_runs(scene: Scene) -> None:
    page = scene.open()
    page.complaints()
    loaded = page.script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert len(loaded) >= 3
    assert {url.split("/page")[0] for url in loaded} == {"http://127.0.0.1:9464"}
    assert page.complaints() == []
    page.script(INTRUDER)
    assert page.script("return window.ran === undefined")
    assert any("Content Security Policy" in line for line in page.complaints())


def test_pictures(scene: Scene, tmp_path: Path) -> None:
    """With PAGE_IMAGES=docs/images: after some minutes, so that there is something on them."""
    directory = Path(PICTURES or tmp_path)
    time.sleep(240 if PICTURES else 1)
    page = scene.open()
    try:
        for name, dark in (("light", False), ("dark", True)):
            page.look(dark=dark)
            time.sleep(1.1)
            page.picture(directory / f"page-{name}.png")
        page.click("#events button")
        page.wait(lambda: page.count("#explanation .bytes mark") > 0)
        page.picture(directory / "page-explanation.png", whole=False)
        page.press(ESCAPE)
        page.look(width=390, height=844, phone=True)
        page.script("scrollTo(0, 0)")
        time.sleep(1.1)
        page.picture(directory / "page-phone.png", whole=False)
    finally:
        page.look()
    for path in directory.glob("page-*.png"):
        assert path.stat().st_size > 20_000


def test_a_failover_and_the_end_of_the_daemon(scene: Scene) -> None:
    """The last of this module: it takes what the others need."""
    page = scene.open()
    scene.lab.guests[0].kill()
    page.wait(lambda: "UNPROTECTED" in page.text("#verdict-word"))
    assert page.text("#verdict-word").startswith("✕")
    assert "one guest runs alone" in page.text("#verdict-why")
    assert "as primary" in page.text("#side-secondary")
    assert "✕ lost" in page.text("#side-primary")
    assert "▲ promoted" in page.text("#events")
    scene.lab.proxy.kill()
    page.wait(lambda: "no answer since" in page.text("#link"))
