"""The bucket's CORS rule, by which web pages upload files and read results."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import structlog

from segmentql.adapters.s3 import S3
from segmentql.errors import StoreRejected

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import CORSRuleOutputTypeDef

log = structlog.get_logger(__name__)

RULE_ID: Final = "segmentql"
"""The id of our CORS rule. Other rules of the bucket are kept."""

MAX_AGE_SECONDS: Final = 3600
"""How long a browser remembers the response to a preflight request."""

_NO_CORS: Final = "NoSuchCORSConfiguration"


async def set_cors(s3: S3, bucket: str, origins: Sequence[str]) -> None:
    """Set our CORS rule of the bucket, or delete it if there are no origins. This is idempotent.

    Not every store has CORS rules for each bucket. Such a store works, too, so the rejection is
    only logged, as an operator may have to allow the origins in the store's configuration.

    Args:
        s3: The store.
        bucket: The name of the bucket.
        origins: Origins such as `https://example.com`, without a path. If it is empty, the rule is
            deleted.

    Raises:
        StoreUnavailable: the store failed.
    """
    try:
        await _set_rule(s3, bucket, origins)
    except StoreRejected as rejected:
        if origins:
            log.warning("cors_not_set", reason=rejected.reason, origins=list(origins))


async def _set_rule(s3: S3, bucket: str, origins: Sequence[str]) -> None:
    existing = await _rules(s3, bucket)
    others = [rule for rule in existing if rule.get("ID") != RULE_ID]
    wanted = [*others, *([_rule(origins)] if origins else [])]
    if existing == wanted:
        return
    client = await s3.client()
    if wanted:
        await s3.call(
            client.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": wanted})
        )
    else:
        await s3.call(client.delete_bucket_cors(Bucket=bucket))
    # Some stores accept rules and do not store them.
    if await _rules(s3, bucket) != wanted:
        log.warning("cors_incomplete", bucket=bucket)


def _rule(origins: Sequence[str]) -> "CORSRuleOutputTypeDef":
    return {
        "ID": RULE_ID,
        "AllowedHeaders": ["content-type"],
        "AllowedMethods": ["GET", "PUT"],
        "AllowedOrigins": list(origins),
        "MaxAgeSeconds": MAX_AGE_SECONDS,
    }


async def _rules(s3: S3, bucket: str) -> "list[CORSRuleOutputTypeDef]":
    client = await s3.client()
    try:
        response = await s3.call(client.get_bucket_cors(Bucket=bucket))
    except StoreRejected as rejected:
        if rejected.code != _NO_CORS:
            raise
        return []
    return response["CORSRules"]
