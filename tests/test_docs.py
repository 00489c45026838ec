"""What the documents promise is there, and what is there is documented."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from prometheus_client import Counter, Gauge, Histogram

from segmentql import metrics
from segmentql.cli import COMMANDS, main
from segmentql.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ENV_EXAMPLE = (ROOT / ".env.example").read_text()


def _variables() -> dict[str, object]:
    return {
        str(field.validation_alias or f"SEGMENTQL_{name.upper()}"): field.default
        for name, field in Settings.model_fields.items()
    }


def test_every_setting_is_in_the_example_with_its_default() -> None:
    shown = dict(re.findall(r"^([A-Z0-9_]+)=(.*)$", ENV_EXAMPLE, re.MULTILINE))
    expected = {
        name: str(default) if isinstance(default, str | int | float) else ""
        for name, default in _variables().items()
    }
    assert shown == expected


def test_every_metric_is_documented_and_no_other() -> None:
    collectors = [
        value for value in vars(metrics).values() if isinstance(value, Counter | Gauge | Histogram)
    ]
    exposed = {
        name + "_total" if isinstance(collector, Counter) else name
        for collector in collectors
        for name in [next(iter(collector.describe())).name]
    } | {value.name for value in vars(metrics).values() if isinstance(value, metrics.Asked)}
    documented = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs/metrics.md").read_text(), re.M))
    assert documented == exposed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    assert f"segmentql {command}" in (ROOT / "docs/commands.md").read_text()


def _commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for part in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), part)
            assert found
            yield from _commands(f"{name} {part}", found)


def test_every_option_of_every_command_has_a_sentence_in_its_help() -> None:
    helps = {
        f"{name} {option.name}": option.help or ""
        for name, command in _commands("segmentql", main)
        for option in command.params
        if isinstance(option, click.Option)
    }
    assert "segmentql up verbose" in helps
    sentences = re.compile(r"[A-Z-].{5,110}\.(  \[default: .*\])?")
    assert [name for name, text in helps.items() if not sentences.fullmatch(text)] == []


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[\[<>=; ]", line)[0] for group in groups for line in group}
    text = (ROOT / "docs/dependencies.md").read_text()
    assert [name for name in sorted(names) if name not in text] == []


def test_every_verb_of_the_makefile_explains_itself() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    explained = set(re.findall(r"^([a-z0-9-]+):.*## ", makefile, re.MULTILINE))
    assert set(phony[1].split()) == explained


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")),
    ],
)
def test_links_between_documents_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
