"""Settings are read once, all errors are reported at once, and secrets are hidden."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from segmentql.cli import main
from segmentql.errors import SettingsError
from segmentql.settings import load_settings
from tests.complete_settings import COMPLETE, STORE, use_empty_environment


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use a folder without `.env`, and an environment without settings."""
    use_empty_environment(monkeypatch, tmp_path)


def test_all_missing_and_wrong_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("command", ["serve", "worker", "bucket", "doctor", "migrate", "seed"])
def test_command_without_settings_names_the_required_ones(command: str) -> None:
    result = CliRunner().invoke(main, [command])
    assert result.exit_code == 1
    missing = {line.split()[0] for line in result.output.splitlines() if "is not set" in line}
    endpoint = () if command in {"migrate", "seed"} else ("SEGMENTQL_S3_ENDPOINT_URL",)
    assert missing == {*COMPLETE, *endpoint}


@pytest.mark.parametrize("command", ["doctor", "seed", "bucket", "keys list", "rollout watch A"])
def test_command_without_a_running_service_names_the_folder(command: str) -> None:
    result = CliRunner().invoke(main, [*command.split(), "--data-dir", "elsewhere"])
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == (
        "No `segmentql up` runs in elsewhere. If one runs in another folder, set --data-dir."
    )


def test_environment_takes_precedence_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = [f"{name}={value}" for name, value in COMPLETE.items()]
    (tmp_path / ".env").write_text("\n".join([*lines, "SEGMENTQL_PORT=1111", "SEGMENTQL_HOST=::1"]))
    monkeypatch.setenv("SEGMENTQL_PORT", "2222")
    settings = load_settings()
    assert (settings.port, settings.host) == (2222, "::1")
    assert load_settings(port=3333).port == 3333


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SEGMENTQL_MIGRATION_DATABASE_URL", "")
    settings = load_settings()
    assert settings.migration_database_url is None
    assert settings.owner_database_url == settings.database_url


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        (
            "postgresql://u:p@h:1/d?sslmode=require",
            "postgresql+asyncpg://u:p@h:1/d?sslmode=require",
        ),
        ("postgresql+asyncpg://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
    ],
)
def test_every_spelling_of_a_database_url_is_accepted(
    monkeypatch: pytest.MonkeyPatch, spelling: str, expected: str
) -> None:
    monkeypatch.setenv("SEGMENTQL_REDIS_URL", COMPLETE["SEGMENTQL_REDIS_URL"])
    monkeypatch.setenv("SEGMENTQL_DATABASE_URL", spelling)
    assert load_settings().database_url == expected


def test_every_wrong_database_url_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMENTQL_REDIS_URL", COMPLETE["SEGMENTQL_REDIS_URL"])
    monkeypatch.setenv("SEGMENTQL_DATABASE_URL", "postgresql://u:word@h/d?options=-cjit%3Doff")
    monkeypatch.setenv("SEGMENTQL_DATABASE_READ_URL", "postgresql://u:word@h/d?sslmode=yes")
    with pytest.raises(SettingsError) as raised:
        load_settings()
    first, second = raised.value.problems
    assert first.startswith('SEGMENTQL_DATABASE_URL: the parameter "options" is not supported')
    assert second.startswith("SEGMENTQL_DATABASE_READ_URL: sslmode must be one of disable, ")
    assert "word" not in first + second


@pytest.mark.parametrize("url", ["mysql://u:p@h/d", "postgresql://u:p@h", "not a url", "sqlite://"])
def test_other_database_is_rejected_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("SEGMENTQL_REDIS_URL", COMPLETE["SEGMENTQL_REDIS_URL"])
    monkeypatch.setenv("SEGMENTQL_DATABASE_URL", url)
    with pytest.raises(SettingsError) as raised:
        load_settings()
    assert len(raised.value.problems) == 1
    assert url not in str(raised.value)


def test_secrets_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**COMPLETE, **STORE}.items():
        monkeypatch.setenv(name, value)
    for settings in (load_settings(), load_settings(with_store=True)):
        assert "secret" not in repr(settings).replace("s3_secret_key", "")
        assert "secret" not in repr(settings.store).replace("secret_key", "")


@pytest.mark.parametrize("variable", ["SEGMENTQL_CORS_ORIGINS", "SEGMENTQL_S3_CORS_ORIGINS"])
def test_origins_are_separated_by_commas_and_checked(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(variable, "https://a.example, http://localhost:3000")
    field_name = variable.removeprefix("SEGMENTQL_").lower()
    assert getattr(load_settings(), field_name) == ("https://a.example", "http://localhost:3000")
    for mistake in (
        "*",
        "null",
        "a.example",
        "https://a.example/",
        "https://A.example",
        "https://a.example:443",
        "http://a.example:80",
        "https://a.example:x",
        "https://u:p@a.example",
        "ftp://a.example",
        "https://",
    ):
        monkeypatch.setenv(variable, f"https://a.example,{mistake}")
        with pytest.raises(SettingsError) as raised:
            load_settings()
        (problem,) = raised.value.problems
        assert problem.startswith(f"{variable}: an origin must be like"), mistake


def test_settings_of_clients_are_known_to_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**COMPLETE, "SEGMENTQL_URL": "http://api.example"}.items():
        monkeypatch.setenv(name, value)
    Path(".env").write_text("SEGMENTQL_API_KEY=sgql_a\n")
    load_settings()


def test_client_reads_its_settings_from_the_env_file() -> None:
    Path(".env").write_text("SEGMENTQL_URL=http://127.0.0.1:1/segments\n")
    Path("list.csv").write_text("1\n")
    result = CliRunner().invoke(main, ["import", "list.csv", "--segment", "a"])
    assert (result.exit_code, result.output) == (
        1,
        "Error: http://127.0.0.1:1/segments/graphql does not respond: Connection refused.\n",
    )


@pytest.mark.parametrize("root_path", ["", "/segmentql", "/tools/segment-ql_2.~", "/" + "a" * 199])
def test_root_path_is_accepted(monkeypatch: pytest.MonkeyPatch, root_path: str) -> None:
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SEGMENTQL_ROOT_PATH", root_path)
    assert load_settings().root_path == root_path


@pytest.mark.parametrize(
    ("root_path", "message"),
    [
        *(
            (text, "must be empty or like /segmentql or /tools/segmentql")
            for text in (
                *("/", "segmentql", "/a/", "/a//b", "/a/../b", "/a/.", "/%61", "/a b", "/a?b"),
                *("http://a/b", "/a\n", "/ä", "/" + "a" * 200),
            )
        ),
        *(
            (f"/{name}", f"must not contain /{name}, which is a path of the service")
            for name in ("graphql", "federation")
        ),
        ("/a/static/b", "must not contain /static, which is a path of the service"),
    ],
)
def test_wrong_root_path_is_rejected(
    monkeypatch: pytest.MonkeyPatch, root_path: str, message: str
) -> None:
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SEGMENTQL_ROOT_PATH", root_path)
    with pytest.raises(SettingsError) as raised:
        load_settings()
    (problem,) = raised.value.problems
    assert problem.startswith(f"SEGMENTQL_ROOT_PATH: {message}")
