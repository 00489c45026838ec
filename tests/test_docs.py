"""The documents agree with the code: settings, metrics, commands, dependencies, links and paths."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from prometheus_client import Counter, Gauge, Histogram

from segmentql import metrics
from segmentql.audit.records import AuditAction
from segmentql.cli import COMMANDS, main
from segmentql.settings import CLIENT_VARIABLES, Settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DECISIONS = DOCS / "decisions"
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [
        *ROOT.glob("*.md"),
        *DOCS.rglob("*.md"),
        *(ROOT / folder / "README.md" for folder in ("bench", "web", "monitoring")),
    ]
)
FOLDERS = "alembic|bench|compose|docs|helm|minio|monitoring|src|tests|web"
PATHS = re.compile(
    rf"`((?:{FOLDERS})/[\w./-]*|[\w/-]+/[\w-]+\.(?:py|sh)|[\w-]+\.(?:graphql|lock|md|toml|yaml))`"
)
"""A path in a document: below one of the folders, a module, or a file of the root."""

MAX_IMAGE_BYTES = 200_000


def _defaults() -> dict[str, str]:
    return {
        str(field.validation_alias or f"SEGMENTQL_{name.upper()}"): str(field.default)
        if isinstance(field.default, str | int | float)
        else ""
        for name, field in Settings.model_fields.items()
    } | CLIENT_VARIABLES


def test_every_setting_is_in_env_example_with_its_default() -> None:
    text = (ROOT / ".env.example").read_text()
    assert dict(re.findall(r"^([A-Z0-9_]+)=(.*)$", text, re.MULTILINE)) == _defaults()


def test_every_setting_is_in_the_configuration_page_with_its_default() -> None:
    text = (DOCS / "configuration.md").read_text()
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \|(?: `(.*?)`)? \| \S", text, re.MULTILINE)
    assert dict(rows) == _defaults()
    assert len(rows) == len(_defaults())


def test_settings_in_the_limits_page_exist_with_their_default() -> None:
    text = (DOCS / "limits.md").read_text()
    rows = re.findall(r"^\| .* \| ([\d,]+)(?: s)? \| `(\w+)` \|$", text, re.MULTILINE)
    assert "SEGMENTQL_MAX_COST" in dict(rows).values()
    defaults = _defaults()
    assert [(n, name) for n, name in rows if defaults.get(name) != n.replace(",", "")] == []


def test_every_metric_is_documented_and_no_other() -> None:
    collectors = [
        value for value in vars(metrics).values() if isinstance(value, Counter | Gauge | Histogram)
    ]
    exposed = {
        name + "_total" if isinstance(collector, Counter) else name
        for collector in collectors
        for name in [next(iter(collector.describe())).name]
    } | {value.name for value in vars(metrics).values() if isinstance(value, metrics.ScrapedGauge)}
    documented = set(re.findall(r"^\| `(\w+)`", (DOCS / "metrics.md").read_text(), re.M))
    assert documented == exposed


def test_every_audit_action_is_documented_and_no_other() -> None:
    text = (DOCS / "audit-log.md").read_text()
    assert re.findall(r"^\| `(\w+\.\w+)` \|", text, re.MULTILINE) == [*AuditAction]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_commands_page(command: str) -> None:
    assert f"| `segmentql {command}" in (DOCS / "commands.md").read_text()


def _commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for part in command.list_commands(click.Context(command)):
            subcommand = command.get_command(click.Context(command), part)
            assert subcommand
            yield from _commands(f"{name} {part}", subcommand)


def test_every_option_has_a_help_sentence() -> None:
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
    text = (DOCS / "dependencies.md").read_text()
    assert [name for name in sorted(names) if name not in text] == []


def test_every_makefile_target_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    explained = set(re.findall(r"^([a-z0-9-]+):.*## ", makefile, re.MULTILINE))
    assert set(phony[1].split()) == explained


@pytest.mark.parametrize("page", PAGES)
def test_links_between_documents_work(page: str) -> None:
    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


BUILT = {"src/segmentql/static/"}
"""Paths that the build of the page creates; a clone does not have them."""


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_paths_in_documents_exist(page: str) -> None:
    names = {n for n in PATHS.findall((ROOT / page).read_text()) if "NNNN" not in n} - BUILT
    folders = (ROOT, (ROOT / page).parent, ROOT / "src" / "segmentql")
    missing = [name for name in names if not any((parent / name).exists() for parent in folders)]
    assert missing == []


def test_index_of_decisions_repeats_every_decision() -> None:
    rows = re.findall(
        r"^\| (\d+) \| \[(.*)\]\((.*)\) \| (.*) \| (.*) \|$",
        (DECISIONS / "README.md").read_text(),
        re.MULTILINE,
    )
    decisions = []
    for path in sorted(DECISIONS.glob("0*.md")):
        heading = re.match(
            r"# (\d+)\. (.*)\n\n\*\*Status\.\*\* (.*)\.\n\n\*\*Date\.\*\* (.*)\.\n",
            path.read_text(),
        )
        assert heading, f"{path.name} has no title, status and date"
        assert heading[1] == path.name[:4].lstrip("0")
        decisions.append((heading[1], heading[2], path.name, heading[3], heading[4]))
    assert rows == decisions


def test_images_are_small_and_shown() -> None:
    text = "".join((ROOT / page).read_text() for page in PAGES)
    images = sorted((DOCS / "images").iterdir())
    assert images
    assert [image.name for image in images if image.stat().st_size > MAX_IMAGE_BYTES] == []
    assert [image.name for image in images if f"images/{image.name})" not in text] == []


def test_programs_in_the_clients_page_are_parts_of_their_files() -> None:
    text = (DOCS / "clients.md").read_text()
    parts = re.findall(r"^\[(\S+)\]\(\1\):\n\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    languages = ("python", "typescript", "toml", "yaml", "graphql")
    assert len(parts) == sum(text.count(f"```{language}\n") for language in languages)
    assert [name for name, part in parts if part not in (DOCS / name).read_text()] == []
