"""`segmentql bucket`: makes the bucket, twice if need be, and tells no key."""

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from segmentql.adapters.storage import Storage
from segmentql.settings import Settings
from tests.conftest import environment

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

pytestmark = pytest.mark.slow  # each test starts a process of the command


async def bucket(settings: Settings, **changes: str) -> tuple[int | None, str]:
    """Run the command; how it ended and all it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", "bucket"),
        env=environment(settings, **changes),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_makes_the_bucket_and_may_be_repeated(settings: Settings, s3: "S3Client") -> None:
    named = settings.model_copy(update={"s3_bucket": "made-by-command"})
    for _ in range(2):
        assert await bucket(named, SEGMENTQL_REPORT_RETENTION_DAYS="5") == (0, "")
    storage = Storage(named)
    await storage.check()
    await storage.close()
    found = await s3.get_bucket_lifecycle_configuration(Bucket="made-by-command")
    assert [rule["Expiration"]["Days"] for rule in found["Rules"]] == [6]


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("SECRET_KEY", "wrong", "the object store does not take the secret key"),
        ("ENDPOINT_URL", "http://127.0.0.1:1", "the object store cannot be reached"),
    ],
)
async def test_what_keeps_it_from_that_is_said(
    settings: Settings, s3: "S3Client", variable: str, value: str, reason: str
) -> None:
    status, said = await bucket(settings, **{f"SEGMENTQL_S3_{variable}": value})
    assert (status, said) == (1, f"Error: bucket segmentql-reports: {reason}\n")


async def test_no_key_and_no_signature_is_logged_at_any_level(
    settings: Settings, s3: "S3Client"
) -> None:
    named = settings.model_copy(update={"s3_bucket": "made-with-many-words"})
    status, said = await bucket(named, SEGMENTQL_LOG_LEVEL="debug")
    assert status == 0
    for secret in (settings.store.access_key, settings.store.secret_key, "AWS4", "Signature"):
        assert secret not in said
