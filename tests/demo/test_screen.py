import io

import pytest

from colo_compare.demo.screen import WIDTH, Screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_no_control_codes_and_no_moving_line() -> None:
    out = io.StringIO()
    screen = Screen(out)

    screen.title("Part")
    screen.move("moving")
    screen.say("resting")

    assert out.getvalue() == "\nPart\n   resting\n"


def test_a_line_replaces_the_moving_one() -> None:
    out = Terminal()
    screen = Screen(out)

    screen.move("moving")
    screen.say("resting")
    screen.say("more")

    assert out.getvalue().split("\r\x1b[K")[1:] == ["   moving", "   resting\n   more\n"]


def test_paragraphs_fit_the_width() -> None:
    out = io.StringIO()

    Screen(out).say("word " * 100)

    lines = out.getvalue().splitlines()
    assert len(lines) > 5
    assert max(map(len, lines)) <= WIDTH


def test_the_summary_tells_what_failed() -> None:
    out = io.StringIO()
    screen = Screen(out)
    assert not screen.all_held()  # nothing was checked

    screen.check("one", "1", held=True)
    assert screen.all_held()
    screen.check("another", "2", held=False)
    assert not screen.all_held()
    screen.summary()

    assert out.getvalue() == (
        "\nSummary\n   ok      one      1\n   FAILED  another  2\n\n   NOT everything held.\n"
    )


@pytest.mark.parametrize(("no_color", "code"), [("", "\x1b[32m"), ("1", "")], ids=["coloured", "plain"])
def test_colours_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, no_color: str, code: str) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    out = Terminal()
    screen = Screen(out)
    screen.move("a line that moves is no colour")
    screen.check("one", "1", held=True)
    screen.summary()

    assert ("\x1b[" in out.getvalue().replace("\x1b[K", "")) == bool(code)
    assert f"{code}ok" in out.getvalue()
