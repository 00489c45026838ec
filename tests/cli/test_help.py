"""The help of every command has complete lines in lists, and the documented exit codes."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from segmentql.cli import main
from segmentql.cli.exits import EXIT_CODES

DOCS = Path(__file__).parents[2] / "docs" / "commands.md"


def commands(group: click.Group, *above: str) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *above, name)
        else:
            yield (*above, name)


ALL = list(commands(main))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, terminal_width=80)


@pytest.mark.parametrize("group", [(), ("keys",), ("rollout",)])
def test_command_lists_truncate_no_line(group: tuple[str, ...]) -> None:
    assert "..." not in run(*group, "--help").output.replace("[ARGS]...", "")


def test_every_command_has_exit_codes() -> None:
    assert {" ".join(arguments) for arguments in ALL} == set(EXIT_CODES)


@pytest.mark.parametrize("arguments", ALL, ids=" ".join)
def test_help_ends_with_the_exit_codes(arguments: tuple[str, ...]) -> None:
    exit_code_lines = run(*arguments, "--help").output.partition("Exit codes:\n")[2].splitlines()
    codes = EXIT_CODES[" ".join(arguments)]
    assert [line.split(maxsplit=1) for line in exit_code_lines] == [
        [str(code), meaning] for code, meaning in codes.items()
    ]


def test_exit_codes_are_those_of_the_docs() -> None:
    rows = re.findall(r"^\| `segmentql ([a-z -]+)` \| (\d+) \| (.*) \|$", DOCS.read_text(), re.M)
    assert rows == [
        (command, str(code), meaning)
        for command, codes in EXIT_CODES.items()
        for code, meaning in codes.items()
    ]


@pytest.mark.parametrize("arguments", ALL, ids=" ".join)
def test_wrong_command_line_exits_with_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments, "--no-such-option").exit_code == 2
