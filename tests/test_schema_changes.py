"""Breaking changes of a released schema are reported, unless their deprecation date has passed."""

import re
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner

from graphql import build_schema, print_schema
from segmentql.cli import main
from segmentql.graphql.breaking_changes import breaking_changes

CURRENT = Path(__file__).parents[1] / "schema.graphql"
RELEASED = """
type Query {
  user(id: ID!, old: Int @deprecated(reason: "Gone from 2026-05-01.")): User
  legacy: Legacy @deprecated(reason: "Use user. Gone from 2026-05-01.")
  undated: Int @deprecated(reason: "Use user.")
}
type User { id: ID!, name: String, colour: Colour, reason: Reason }
type Legacy { id: ID!, part: Part }
type Part { id: ID! }
enum Colour { RED GREEN @deprecated(reason: "2026-05-01") BLUE }
interface Reason { code: Int }
type NotFound implements Reason { code: Int }
"""
AFTER_REMOVAL = "2026-05-01"
REQUIRED_PARTS = {
    "name: String, ": "Field User.name was removed.",
    "BLUE ": "Enum value Colour.BLUE was removed.",
    "id: ID!, old": "Argument Query.user(id:) was removed.",
    'undated: Int @deprecated(reason: "Use user.")': "Field Query.undated was removed.",
    "type NotFound implements Reason { code: Int }": "NotFound was removed.",
}
DEPRECATED_PARTS = {
    'old: Int @deprecated(reason: "Gone from 2026-05-01.")': [
        "Argument Query.user(old:) was removed."
    ],
    'GREEN @deprecated(reason: "2026-05-01") ': ["Enum value Colour.GREEN was removed."],
    'legacy: Legacy @deprecated(reason: "Use user. Gone from 2026-05-01.")': [
        "Field Query.legacy was removed.",
        "Legacy was removed.",
        "Part was removed.",
    ],
}


def without(part: str) -> str:
    assert RELEASED.count(part) == 1
    text = RELEASED.replace(part, "old" if part.endswith("old") else "")
    if part.startswith("legacy"):
        text = re.sub(r"type (Legacy|Part) \{.*\}\n", "", text)
    return text


def broken(now: str, on: str | None) -> list[str]:
    return breaking_changes(RELEASED, now, on=date.fromisoformat(on) if on else None)


def test_same_or_extended_schema_breaks_nothing() -> None:
    extended = RELEASED.replace("name: String,", "name: String, more(of: Int): Int,")
    for now in (RELEASED, extended):
        for on in (None, AFTER_REMOVAL):
            assert broken(now, on) == []


@pytest.mark.parametrize("part", REQUIRED_PARTS)
def test_removed_part_without_a_date_is_reported(part: str) -> None:
    for on in (None, "2099-01-01"):
        assert broken(without(part), on) == [REQUIRED_PARTS[part]]


@pytest.mark.parametrize("part", DEPRECATED_PARTS)
def test_deprecated_part_may_be_removed_from_its_date(part: str) -> None:
    assert broken(without(part), None) == DEPRECATED_PARTS[part]
    assert broken(without(part), "2026-04-30") == DEPRECATED_PARTS[part]
    assert broken(without(part), AFTER_REMOVAL) == []


def test_changed_type_and_new_required_argument_are_reported() -> None:
    assert broken(RELEASED.replace("name: String", "name: Int"), AFTER_REMOVAL) == [
        "Field User.name changed type from String to Int."
    ]
    assert broken(RELEASED.replace("name: String", "name(a: Int!): String"), AFTER_REMOVAL) == [
        "A required argument User.name(a:) was added."
    ]


def test_command_reports_breaking_changes_and_fails(tmp_path: Path) -> None:
    same = CliRunner().invoke(main, ["schema", "--compare", str(CURRENT), "--on", "2026-11-25"])
    assert (same.exit_code, same.output) == (0, f"no breaking changes since {CURRENT}\n")
    schema = build_schema(CURRENT.read_text())
    released = print_schema(schema).replace("type Query {", "type Query {\n  gone: Int", 1)
    file = tmp_path / "released.graphql"
    file.write_text(released)
    result = CliRunner().invoke(main, ["schema", "--compare", str(file)])
    assert result.exit_code == 1
    assert result.stdout == "Field Query.gone was removed.\n"
    for text in ("type Query {", "nothing", "type Query { a: Nope }", "\0"):
        file.write_text(text)
        result = CliRunner().invoke(main, ["schema", "--compare", str(file)])
        assert result.exit_code == 1
        assert "not a schema" in result.output
