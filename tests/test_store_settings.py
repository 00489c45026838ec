"""The settings of the object store are checked, and some of them have defaults."""

from pathlib import Path

import pytest

from segmentql.errors import SettingsError
from segmentql.settings import load_settings
from tests.complete_settings import COMPLETE, STORE, use_empty_environment


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use a folder without `.env`, and an environment without settings."""
    use_empty_environment(monkeypatch, tmp_path)


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
