"""Settings are read once, all errors are reported at once, and secrets are hidden."""

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


STORE = {
    "SEGMENTQL_S3_ENDPOINT_URL": "https://s3.example",
    "SEGMENTQL_S3_ACCESS_KEY": "access-secret",
    "SEGMENTQL_S3_SECRET_KEY": "secret-secret",
}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use a folder without `.env`, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in (*COMPLETE, *STORE):
        monkeypatch.delenv(name, raising=False)


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


@pytest.mark.parametrize("name", ["SEGMENTQL_S3_ACCESS_KEY", "SEGMENTQL_S3_SECRET_KEY"])
def test_one_key_of_the_store_without_the_other_is_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for setting, value in {**COMPLETE, **STORE, name: ""}.items():
        monkeypatch.setenv(setting, value)
    for load in (lambda: load_settings(with_store=True), lambda: load_settings().store):
        with pytest.raises(SettingsError) as raised:
            load()
        (problem,) = raised.value.problems
        assert problem.startswith(f"{name} is not set, but SEGMENTQL_S3_")
        assert "secret-secret" not in problem


def test_store_without_an_endpoint_is_amazon_if_its_bucket_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"^SEGMENTQL_S3_ENDPOINT_URL is not set\. For Amazon"):
        load_settings(with_store=True)
    monkeypatch.setenv("SEGMENTQL_S3_BUCKET", "acme-segments")
    monkeypatch.setenv("SEGMENTQL_S3_REGION", "eu-central-1")
    store = load_settings(with_store=True).store
    assert store.endpoint_url == "https://s3.eu-central-1.amazonaws.com"
    assert store.public_endpoint_url == store.endpoint_url
    assert (store.access_key, store.secret_key) == ("", "")


@pytest.mark.parametrize(
    ("endpoint", "bucket", "addressing", "origin"),
    [
        (
            "https://s3.eu-west-1.amazonaws.com",
            "bkt",
            "auto",
            "https://bkt.s3.eu-west-1.amazonaws.com",
        ),
        ("https://s3.amazonaws.com", "b.kt", "auto", "https://s3.amazonaws.com"),
        ("https://s3.amazonaws.com", "bkt", "path", "https://s3.amazonaws.com"),
        (
            "https://bucket.vpce-1-2.s3.eu-west-1.vpce.amazonaws.com",
            *("bkt", "auto", "https://bucket.vpce-1-2.s3.eu-west-1.vpce.amazonaws.com"),
        ),
        ("http://minio:9000", "bkt", "auto", "http://minio:9000"),
        ("http://minio:9000", "bkt", "virtual", "http://bkt.minio:9000"),
    ],
)
def test_addressing_decides_the_host_of_the_bucket(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, bucket: str, addressing: str, origin: str
) -> None:
    changes = {
        "SEGMENTQL_S3_ENDPOINT_URL": endpoint,
        "SEGMENTQL_S3_BUCKET": bucket,
        "SEGMENTQL_S3_ADDRESSING": addressing,
    }
    for name, value in {**COMPLETE, **STORE, **changes}.items():
        monkeypatch.setenv(name, value)
    store = load_settings(with_store=True).store
    assert store.bucket_origin(endpoint) == origin


def test_store_settings_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**COMPLETE, **STORE}.items():
        monkeypatch.setenv(name, value)
    store = load_settings(with_store=True).store
    assert (store.endpoint_url, store.public_endpoint_url) == ("https://s3.example",) * 2
    assert (store.region, store.bucket) == ("us-east-1", "segmentql-reports")
    assert (store.access_key, store.secret_key) == ("access-secret", "secret-secret")

    monkeypatch.setenv("SEGMENTQL_S3_ENDPOINT_URL", "http://minio:9000/")
    monkeypatch.setenv("SEGMENTQL_S3_PUBLIC_ENDPOINT_URL", "https://[2001:db8::1]:444")
    store = load_settings(with_store=True).store
    assert store.endpoint_url == "http://minio:9000"
    assert store.public_endpoint_url == "https://[2001:db8::1]:444"


def test_missing_store_settings_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {**COMPLETE, "SEGMENTQL_S3_ACCESS_KEY": "key"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        _ = load_settings().store
    assert [problem.split(" is not set")[0] for problem in raised.value.problems] == [
        "SEGMENTQL_S3_ENDPOINT_URL",
        "SEGMENTQL_S3_SECRET_KEY",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("S3_ENDPOINT_URL", "s3.example"),
        ("S3_ENDPOINT_URL", "ftp://s3.example"),
        ("S3_ENDPOINT_URL", "https://"),
        ("S3_ENDPOINT_URL", "https://key:word@s3.example"),
        ("S3_ENDPOINT_URL", "https://s3.example/bucket"),
        ("S3_ENDPOINT_URL", "https://s3.example?x=1"),
        ("S3_ENDPOINT_URL", "https://s3.example:0"),
        ("S3_ENDPOINT_URL", "https://s3.example:65536"),
        ("S3_ENDPOINT_URL", "https://[::1"),
        ("S3_PUBLIC_ENDPOINT_URL", "s3.example"),
        ("S3_REGION", "EU Central"),
        ("S3_BUCKET", "ab"),
        ("S3_BUCKET", "Reports"),
        ("S3_BUCKET", "a/b"),
        ("S3_BUCKET", "a" * 64),
        ("REPORT_RETENTION_DAYS", "0"),
        ("REPORT_RETENTION_DAYS", "3651"),
        ("REPORT_RETENTION_DAYS", "1.5"),
    ],
)
def test_invalid_store_settings_are_rejected(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    for variable, valid in {**COMPLETE, **STORE}.items():
        monkeypatch.setenv(variable, valid)
    monkeypatch.setenv(f"SEGMENTQL_{name}", value)
    for with_store in (True, False):
        with pytest.raises(SettingsError) as raised:
            load_settings(with_store=with_store)
        (problem,) = raised.value.problems
        assert problem.startswith(f"SEGMENTQL_{name}: ")
        assert "word" not in problem


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
