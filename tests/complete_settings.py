"""The required settings of the service and of the object store, and an empty environment."""

from pathlib import Path

import pytest

COMPLETE = {
    "SEGMENTQL_DATABASE_URL": "postgresql://service:secret@db.example/segmentql",
    "SEGMENTQL_REDIS_URL": "redis://:secret@redis.example:6379/0",
}


STORE = {
    "SEGMENTQL_S3_ENDPOINT_URL": "https://s3.example",
    "SEGMENTQL_S3_ACCESS_KEY": "access-secret",
    "SEGMENTQL_S3_SECRET_KEY": "secret-secret",
}


def use_empty_environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Use a folder without `.env`, and an environment without settings."""
    monkeypatch.chdir(folder)
    for name in (*COMPLETE, *STORE):
        monkeypatch.delenv(name, raising=False)
