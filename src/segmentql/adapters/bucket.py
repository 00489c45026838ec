"""Checks the bucket, and creates it with its lifecycle and its CORS rule. Idempotent."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import structlog

from segmentql.adapters.bucket_cors import set_cors
from segmentql.adapters.s3 import S3, server_clock
from segmentql.errors import BucketMissing, StoreRejected
from segmentql.store_settings import StoreSettings

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import LifecycleRuleOutputTypeDef

log = structlog.get_logger(__name__)

RULE: Final = "segmentql-reports"
"""The id of the lifecycle rule for all files. Rules of others in the bucket are kept."""

UPLOADS_RULE: Final = "segmentql-import-uploads"
FILES_RULE: Final = "segmentql-import-files"

SHORT_LIVED: Final[Mapping[str, tuple[str, int]]] = MappingProxyType(
    {
        # Clients write here. The link is valid for a day, and the service copies a file when its
        # import starts. The other two days are for workers that do not run meanwhile.
        UPLOADS_RULE: ("imports/uploads/", 3),
        # The service's copies, which are deleted when the list is read. The days are for workers
        # that do not run meanwhile.
        FILES_RULE: ("imports/files/", 8),
    }
)
"""The rules with fewer days than `RULE`, as prefix and days, by id. If several rules apply to a
file, S3 uses the one with the fewest days."""

UNFINISHED_DAYS: Final = 1
"""The age at which the store aborts an unfinished upload."""

DEFAULT_REGION: Final = "us-east-1"
"""S3 rejects this region as a location constraint."""

_ALREADY_EXISTS: Final = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists", "OperationAborted"}
_NO_LIFECYCLE: Final = "NoSuchLifecycleConfiguration"


async def check(s3: S3, bucket: str) -> datetime:
    """Check that the store accepts the credentials and has the bucket; return its clock.

    Raises:
        StoreFailed: the check failed.
    """
    client = await s3.client()
    # Not HeadBucket, because its response has no body with the reason of a failure.
    page = await s3.call(client.list_objects_v2(Bucket=bucket, MaxKeys=1))
    return server_clock(page["ResponseMetadata"])


async def set_up(s3: S3, store: StoreSettings, *, expire_days: int) -> None:
    """Create the bucket, if it is missing, and set its rules. New buckets are private.

    A store without full support for lifecycles works, too, because the scheduler deletes files.

    Raises:
        StoreFailed: the bucket does not exist and could not be created.
    """
    try:
        await check(s3, store.bucket)
    except BucketMissing:
        await _create(s3, store)
    try:
        await _set_lifecycle(s3, store.bucket, expire_days)
    except StoreRejected as rejected:
        log.warning("lifecycle_not_set", reason=rejected.reason)
    await set_cors(s3, store.bucket, store.cors_origins)


async def _create(s3: S3, store: StoreSettings) -> None:
    client = await s3.client()
    location: Any = {"CreateBucketConfiguration": {"LocationConstraint": store.region}}
    options = {} if store.region == DEFAULT_REGION else location
    try:
        await s3.call(client.create_bucket(Bucket=store.bucket, **options))
    except StoreRejected as rejected:
        # Another process may have created the bucket. If it belongs to others, `check` raises.
        if rejected.code not in _ALREADY_EXISTS:
            raise
    await check(s3, store.bucket)


async def _set_lifecycle(s3: S3, bucket: str, expire_days: int) -> None:
    short_lived = [
        _expiry(rule_id, prefix, min(days, expire_days))
        for rule_id, (prefix, days) in SHORT_LIVED.items()
    ]
    expiry = _expiry(RULE, "", expire_days)
    rule: LifecycleRuleOutputTypeDef = {
        **expiry,
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UNFINISHED_DAYS},
    }
    ours = [*short_lived, rule]
    existing = await _rules(s3, bucket)
    if all(one in existing for one in ours):
        return
    our_ids = {RULE, *SHORT_LIVED}
    others = [other for other in existing if other.get("ID") not in our_ids]
    try:
        await _put_rules(s3, bucket, [*others, *ours])
    except StoreRejected:
        await _put_rules(s3, bucket, [*others, *short_lived, expiry])
    # Some stores accept a rule and store only a part of it.
    stored = await _rules(s3, bucket)
    if not all(one in stored for one in ours):
        log.warning("lifecycle_incomplete", bucket=bucket)


def _expiry(rule_id: str, prefix: str, days: int) -> "LifecycleRuleOutputTypeDef":
    return {
        "ID": rule_id,
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "Expiration": {"Days": days},
    }


async def _rules(s3: S3, bucket: str) -> "list[LifecycleRuleOutputTypeDef]":
    client = await s3.client()
    try:
        response = await s3.call(client.get_bucket_lifecycle_configuration(Bucket=bucket))
    except StoreRejected as rejected:
        if rejected.code != _NO_LIFECYCLE:
            raise
        return []
    return response["Rules"]


async def _put_rules(s3: S3, bucket: str, rules: "list[LifecycleRuleOutputTypeDef]") -> None:
    client = await s3.client()
    await s3.call(
        client.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": rules}
        )
    )
