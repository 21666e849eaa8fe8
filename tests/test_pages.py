"""The pages that a stranger reads: what they tell must work."""

import os
import re
from pathlib import Path

import pytest

from colo_compare.cli import main
from colo_compare.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def test_the_configuration_of_the_readme_is_valid(tmp_path: Path) -> None:
    (text,) = blocks(ROOT / "README.md", "toml")
    file = tmp_path / "pair.toml"
    file.write_text(text)
    assert load_config(file, {}).ports.client == "packet:eth0"


def test_the_two_commands_of_the_readme_can_be_run() -> None:
    commands = re.findall(r"^bin/\w+", "".join(blocks(ROOT / "README.md", "sh")), re.MULTILINE)
    assert commands == ["bin/demo", "bin/test"]
    assert all(os.access(ROOT / command, os.X_OK) for command in commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_names_is_there(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    known = set(re.findall(r"^ {4}([a-z]+) ", capsys.readouterr().out, re.MULTILINE))
    named = set(re.findall(r"(?:^|`)colo-compare ([a-z]+)", page.read_text(), re.MULTILINE))
    assert {"run", "replay"} <= known
    assert named <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


@pytest.mark.parametrize("folder", ["docs", "docs/runbooks"])
def test_the_index_leads_to_every_page(folder: str) -> None:
    index = (ROOT / folder / "README.md").read_text()
    pages = {page.name for page in (ROOT / folder).glob("*.md")} - {"README.md"}
    assert {page for page in pages if f"({page})" not in index} == set()
