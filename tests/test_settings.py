"""Settings: read once, wrong ones told all at once, secrets kept out of sight."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from segmentql.cli import main
from segmentql.errors import SettingsError
from segmentql.settings import load_settings

COMPLETE = {
    "SEGMENTQL_DATABASE_URL": "postgresql://service:secret@db.example/segmentql",
    "SEGMENTQL_REDIS_URL": "redis://:secret@redis.example:6379/0",
}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder without `.env`, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in COMPLETE:
        monkeypatch.delenv(name, raising=False)


def test_names_all_that_is_missing_or_wrong_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMENTQL_REDIS_URL", "http://redis")
    monkeypatch.setenv("SEGMENTQL_PORT", "0")
    monkeypatch.setenv("SEGMENTQL_SCHEDULER", "perhaps")
    with pytest.raises(SettingsError) as raised:
        load_settings()
    assert sorted(problem.split(":")[0] for problem in raised.value.problems) == [
        "SEGMENTQL_DATABASE_URL is not set",
        "SEGMENTQL_PORT",
        "SEGMENTQL_REDIS_URL",
        "SEGMENTQL_SCHEDULER",
    ]


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
def test_a_command_without_settings_ends_with_their_names(command: str) -> None:
    result = CliRunner().invoke(main, [command])
    assert result.exit_code == 1
    assert "SEGMENTQL_DATABASE_URL is not set" in result.output
    assert "SEGMENTQL_REDIS_URL is not set" in result.output


def test_the_environment_wins_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = [f"{name}={value}" for name, value in COMPLETE.items()]
    (tmp_path / ".env").write_text("\n".join([*lines, "SEGMENTQL_PORT=1111", "SEGMENTQL_HOST=::1"]))
    monkeypatch.setenv("SEGMENTQL_PORT", "2222")
    settings = load_settings()
    assert (settings.port, settings.host) == (2222, "::1")
    assert load_settings(port=3333).port == 3333


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SEGMENTQL_MIGRATION_DATABASE_URL", "")
    settings = load_settings()
    assert settings.migration_database_url is None
    assert settings.owner_database_url == settings.database_url


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql://u:p@h:1/d?sslmode=require", "postgresql+asyncpg://u:p@h:1/d?ssl=require"),
        ("postgresql+asyncpg://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
    ],
)
def test_a_database_is_named_in_any_of_its_spellings(
    monkeypatch: pytest.MonkeyPatch, given: str, taken: str
) -> None:
    monkeypatch.setenv("SEGMENTQL_REDIS_URL", COMPLETE["SEGMENTQL_REDIS_URL"])
    monkeypatch.setenv("SEGMENTQL_DATABASE_URL", given)
    assert load_settings().database_url == taken


@pytest.mark.parametrize("url", ["mysql://u:p@h/d", "postgresql://u:p@h", "not a url", "sqlite://"])
def test_another_kind_of_database_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("SEGMENTQL_REDIS_URL", COMPLETE["SEGMENTQL_REDIS_URL"])
    monkeypatch.setenv("SEGMENTQL_DATABASE_URL", url)
    with pytest.raises(SettingsError) as raised:
        load_settings()
    assert len(raised.value.problems) == 1
    assert url not in str(raised.value)


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    assert "secret" not in repr(load_settings())
