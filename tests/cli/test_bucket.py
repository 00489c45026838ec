"""`segmentql bucket` creates the bucket, is idempotent, and logs no secret."""

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
    """Run the command; return its exit code and output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", "bucket"),
        env=environment(settings, **changes),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_bucket_is_created_and_the_command_is_repeatable(
    settings: Settings, s3: "S3Client"
) -> None:
    with_bucket = settings.model_copy(update={"s3_bucket": "made-by-command"})
    for _ in range(2):
        assert await bucket(
            with_bucket,
            SEGMENTQL_REPORT_RETENTION_DAYS="5",
            SEGMENTQL_S3_CORS_ORIGINS="https://a.example, https://b.example",
        ) == (0, "")
    storage = Storage(with_bucket)
    await storage.check()
    await storage.close()
    configuration = await s3.get_bucket_lifecycle_configuration(Bucket="made-by-command")
    assert [rule["Expiration"]["Days"] for rule in configuration["Rules"]] == [3, 6, 6]
    assert (await s3.get_bucket_cors(Bucket="made-by-command"))["CORSRules"][0][
        "AllowedOrigins"
    ] == ["https://a.example", "https://b.example"]


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("SECRET_KEY", "wrong", "the object store rejects the secret key"),
        ("ENDPOINT_URL", "http://127.0.0.1:1", "the object store cannot be reached"),
    ],
)
async def test_failure_prints_its_reason(
    settings: Settings, s3: "S3Client", variable: str, value: str, reason: str
) -> None:
    status, output = await bucket(settings, **{f"SEGMENTQL_S3_{variable}": value})
    assert (status, output) == (1, f"Error: bucket segmentql-reports: {reason}\n")


async def test_no_secret_is_logged_at_any_level(settings: Settings, s3: "S3Client") -> None:
    with_bucket = settings.model_copy(update={"s3_bucket": "created-with-debug-logs"})
    status, output = await bucket(with_bucket, SEGMENTQL_LOG_LEVEL="debug")
    assert status == 0
    for secret in (settings.store.access_key, settings.store.secret_key, "AWS4", "Signature"):
        assert secret not in output
