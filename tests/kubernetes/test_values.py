"""The values of the chart become settings; secrets come from Secrets only."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest
import yaml

from helm import values_schema
from segmentql.errors import SettingsError
from segmentql.settings import PREFIX, Settings, load_settings
from tests.kubernetes.charts import (
    CHART,
    VALUES,
    environment,
    objects,
    pods,
    rejection,
    render,
)

EVERY = pytest.mark.parametrize("values", sorted(VALUES))

FIRST_KEY = f"sgql_{'a' * 12}_{'0' * 64}"
SECRETS = {
    "SEGMENTQL_DATABASE_URL": "postgresql://service:password@db.example.com/segmentql",
    "SEGMENTQL_DATABASE_READ_URL": "postgresql://service:password@replica.example.com/segmentql",
    "SEGMENTQL_MIGRATION_DATABASE_URL": "postgresql://owner:password@db.example.com/segmentql",
    "SEGMENTQL_REDIS_URL": "rediss://:password@redis.example.com:6379/0",
    "SEGMENTQL_S3_ACCESS_KEY": "access",
    "SEGMENTQL_S3_SECRET_KEY": "secret",
    "SEGMENTQL_METRICS_TOKEN": "a-token-for-metrics",
    "SEGMENTQL_FIRST_KEY": FIRST_KEY,
}
Load: TypeAlias = Callable[[Mapping[str, str]], Settings]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Load:
    """Return a function that reads the settings from an environment, without a file `.env`."""
    monkeypatch.chdir(tmp_path)

    def load(variables: Mapping[str, str]) -> Settings:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            monkeypatch.delenv(name)
        for name, text in variables.items():
            monkeypatch.setenv(name, text)
        return load_settings()

    return load


def with_secrets(values: str, component: str) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else SECRETS[name]
        for name, value in environment(values, component).items()
    }


def test_schema_of_the_values_is_current() -> None:
    text = values_schema.FILE.read_text()
    assert text == values_schema.schema_text(), "run: python helm/values_schema.py"


def test_each_setting_has_one_place_in_the_values() -> None:
    plain, secret = set(values_schema.plain_settings()), set(values_schema.secret_settings())
    known = {values_schema.variable(*item) for item in Settings.model_fields.items()}
    assert plain | secret | values_schema.SET_BY_CHART == known
    assert len(plain) + len(secret) + len(values_schema.SET_BY_CHART) == len(known)
    for name in ("DATABASE_URL", "DATABASE_READ_URL", "REDIS_URL", "METRICS_TOKEN"):
        assert PREFIX + name in secret


@EVERY
def test_environment_of_each_pod_is_valid(values: str, load: Load) -> None:
    for component, _ in pods(values):
        assert load(with_secrets(values, component)).auth == "required"


def test_values_become_the_texts_that_the_settings_need(load: Load) -> None:
    loaded = load(with_secrets("everything", "worker"))
    expected = {
        "max_response_bytes": 33_554_432,
        "statement_timeout_seconds": 2.5,
        "rate_per_second": 0,
        "graphiql": "off",
        "console": "on",
        "introspection": "off",
        "cors_origins": ("https://app.example.com", "https://admin.example.com"),
        "s3_bucket": "example-segments",
        "auth": "required",
        "host": "0.0.0.0",  # noqa: S104 - the address of a pod
        "worker_port": 9091,
        "log_format": "json",
    }
    assert {name: getattr(loaded, name) for name in expected} == expected
    assert environment("everything", "api")["SEGMENTQL_MAX_RESPONSE_BYTES"] == "33554432"
    assert "SEGMENTQL_LOG_FORMAT" not in environment("minimal", "api")


def test_variables_of_kubernetes_for_services_would_be_invalid(load: Load) -> None:
    """Therefore `enableServiceLinks` is off: the Service has the name `segmentql`."""
    variables = with_secrets("default", "worker")
    links = {"SEGMENTQL_PORT": "tcp://10.0.0.1:80", "SEGMENTQL_SERVICE_HOST": "10.0.0.1"}
    with pytest.raises(SettingsError, match="SEGMENTQL_PORT: "):
        load(variables | links)
    for values in VALUES:
        for _, template in pods(values):
            assert template["spec"]["enableServiceLinks"] is False


@EVERY
def test_secrets_are_references_and_only_where_they_are_needed(values: str) -> None:
    assert objects(values, "Secret", "ConfigMap") == []
    secret = {*values_schema.secret_settings(), *SECRETS}
    for component, _ in pods(values):
        found = environment(values, component)
        references = {name for name, value in found.items() if not isinstance(value, str)}
        assert references == found.keys() & secret
        assert ("SEGMENTQL_MIGRATION_DATABASE_URL" in found) is (component == "migrate")
        assert ("SEGMENTQL_FIRST_KEY" in found) is (component == "first-key")
    text = yaml.dump_all(render(values))
    assert "postgresql://" not in text
    assert "sgql_" not in text


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("image.repository=", "at '/image/repository': minLength"),
        ("settings.SEGMENTQL_DATABSE_URL=x", "'SEGMENTQL_DATABSE_URL' not allowed"),
        ("settings.SEGMENTQL_DATABASE_URL=x", "'SEGMENTQL_DATABASE_URL' not allowed"),
        ("settings.SEGMENTQL_METRICS_TOKEN=x", "'SEGMENTQL_METRICS_TOKEN' not allowed"),
        ("settings.SEGMENTQL_AUTH=off", "'SEGMENTQL_AUTH' not allowed"),
        ("settings.SEGMENTQL_DATABASE_POOL_SIZE=201", "DATABASE_POOL_SIZE': maximum"),
        ("settings.SEGMENTQL_LOG_LEVEL=loud", "value must be one of 'debug', 'info'"),
        ("secretSettings.SEGMENTQL_DATABASE_URL=null", "SEGMENTQL_DATABASE_URL"),
        ("secretSettings.SEGMENTQL_REDIS_URL.key=", "SEGMENTQL_REDIS_URL/key': minLength"),
        ("api.replica=2", "additional properties 'replica' not allowed"),
        ("api.port=80", "at '/api/port': minimum"),
        ("monitoring.interva=1s", "additional properties 'interva' not allowed"),
    ],
)
def test_wrong_value_is_rejected(change: str, error: str) -> None:
    assert error in rejection(change)


def test_monitors_need_the_token_of_the_metrics() -> None:
    assert "monitoring.enabled needs secretSettings.SEGMENTQL_METRICS_TOKEN" in rejection(
        "monitoring.enabled=true", "secretSettings.SEGMENTQL_METRICS_TOKEN=null"
    )


def test_every_value_is_used_by_a_template_and_known_to_the_schema() -> None:
    templates = "".join(path.read_text() for path in sorted(CHART.glob("templates/*")))
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    known = values_schema.values_schema()["properties"]
    assert known.keys() - {"global"} == values.keys()
    for name, group in values.items():
        assert f".Values.{name}" in templates or name in {"worker", "api"}, name
        fields = known[name].get("properties", {})
        if name not in {"settings", "secretSettings"} and fields:
            assert fields.keys() == group.keys(), name
            assert [field for field in group if f".{field}" not in templates] == []
