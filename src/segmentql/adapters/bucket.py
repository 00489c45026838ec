"""The bucket itself: whether it can be used, and how it is made. Idempotent, by plain S3 calls."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import structlog

from segmentql.adapters.s3 import S3, clock
from segmentql.errors import BucketMissing, StoreRejected
from segmentql.settings import StoreSettings

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import LifecycleRuleOutputTypeDef

log = structlog.get_logger(__name__)

RULE: Final = "segmentql-reports"
"""The id of our rule in the bucket's lifecycle; those of others stay."""

UNFINISHED_DAYS: Final = 1
"""When the store itself drops an upload that nobody finished."""

FIRST_REGION: Final = "us-east-1"
"""The one that must not be named when a bucket is made in it."""

_TAKEN: Final = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists", "OperationAborted"}
_NO_LIFECYCLE: Final = "NoSuchLifecycleConfiguration"


async def check(s3: S3, bucket: str) -> datetime:
    """Make sure that the store takes our keys and has the bucket; returns its clock.

    Raises:
        StoreFailed: it does not.
    """
    client = await s3.client()
    # Not by a HEAD of the bucket: its answer has no room for a reason.
    page = await s3.call(client.list_objects_v2(Bucket=bucket, MaxKeys=1))
    return clock(page["ResponseMetadata"])


async def set_up(s3: S3, store: StoreSettings, *, expire_days: int) -> None:
    """Make the bucket where it is missing, private as a new one is, and our rule of its lifecycle.

    A store that knows no lifecycle, or not all of it, will do: it is a second line.

    Raises:
        StoreFailed: there is no bucket and none can be made.
    """
    try:
        await check(s3, store.bucket)
    except BucketMissing:
        await _make(s3, store)
    try:
        await _set_lifecycle(s3, store.bucket, expire_days)
    except StoreRejected as refused:
        log.warning("lifecycle_not_set", reason=refused.reason)


async def _make(s3: S3, store: StoreSettings) -> None:
    client = await s3.client()
    place: Any = {"CreateBucketConfiguration": {"LocationConstraint": store.region}}
    options = {} if store.region == FIRST_REGION else place
    try:
        await s3.call(client.create_bucket(Bucket=store.bucket, **options))
    except StoreRejected as refused:
        if refused.code not in _TAKEN:  # by one of us a moment ago, or else `check` refuses
            raise
    await check(s3, store.bucket)


async def _set_lifecycle(s3: S3, bucket: str, expire_days: int) -> None:
    expiry: LifecycleRuleOutputTypeDef = {
        "ID": RULE,
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "Expiration": {"Days": expire_days},
    }
    rule: LifecycleRuleOutputTypeDef = {
        **expiry,
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UNFINISHED_DAYS},
    }
    there = await _rules(s3, bucket)
    if rule in there:
        return
    others = [other for other in there if other.get("ID") != RULE]
    try:
        await _put_rules(s3, bucket, [*others, rule])
    except StoreRejected:
        await _put_rules(s3, bucket, [*others, expiry])
    # There are stores that take a rule and keep a part of it.
    if rule not in await _rules(s3, bucket):
        log.warning("lifecycle_incomplete", bucket=bucket)


async def _rules(s3: S3, bucket: str) -> "list[LifecycleRuleOutputTypeDef]":
    client = await s3.client()
    try:
        found = await s3.call(client.get_bucket_lifecycle_configuration(Bucket=bucket))
    except StoreRejected as refused:
        if refused.code != _NO_LIFECYCLE:
            raise
        return []
    return found["Rules"]


async def _put_rules(s3: S3, bucket: str, rules: "list[LifecycleRuleOutputTypeDef]") -> None:
    client = await s3.client()
    await s3.call(
        client.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": rules}
        )
    )
