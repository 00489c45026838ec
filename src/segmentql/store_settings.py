"""The address and the credentials of the object store."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

Addressing: TypeAlias = Literal["auto", "path", "virtual"]

_AWS_HOST: Final = re.compile(
    r"s3(-fips)?(\.dualstack)?(\.[a-z0-9-]+)?\.amazonaws\.com(\.cn)?", re.ASCII
)
"""Amazon's own hosts, except those of VPC endpoints, which use the path."""


@dataclass(frozen=True)
class StoreSettings:
    """The address and the credentials of the object store."""

    endpoint_url: str
    public_endpoint_url: str
    """The address of the store for clients. Links are signed for it."""
    region: str
    bucket: str
    addressing: Addressing = "auto"
    access_key: str = field(default="", repr=False)
    """Empty: the credentials are found by the default chain of Amazon's SDKs."""
    secret_key: str = field(default="", repr=False)
    cors_origins: tuple[str, ...] = ()
    """The origins of web pages that may send requests to the bucket."""

    def is_virtual(self, endpoint_url: str) -> bool:
        """Return whether the bucket's name is in the host of its URLs, and not in their path.

        `auto` means Amazon's hosts only, because every other store supports the path. A bucket with
        a dot uses the path, because a certificate is not valid for it.
        """
        if self.addressing != "auto":
            return self.addressing == "virtual"
        host = urlsplit(endpoint_url).hostname or ""
        return bool(_AWS_HOST.fullmatch(host)) and "." not in self.bucket

    def bucket_origin(self, endpoint_url: str) -> str:
        """Return the scheme, host and port of the bucket's URLs."""
        url = urlsplit(endpoint_url)
        bucket = f"{self.bucket}." if self.is_virtual(endpoint_url) else ""
        return f"{url.scheme}://{bucket}{url.netloc}"


def aws_endpoint_url(region: str) -> str:
    """Return the endpoint of Amazon S3 in a region."""
    suffix = ".cn" if region.startswith("cn-") else ""
    return f"https://s3.{region}.amazonaws.com{suffix}"


def store_problems(
    *, endpoint_url: object, bucket: object, access_key: object, secret_key: object
) -> Iterator[str]:
    """Yield what is missing in the settings of the store. A setting that is not set is falsy."""
    if not endpoint_url and not bucket:
        # Bucket names of Amazon S3 are global: the default could be the bucket of another account.
        yield (
            "SEGMENTQL_S3_ENDPOINT_URL is not set. For Amazon S3, it can stay empty if"
            " SEGMENTQL_S3_BUCKET is set"
        )
    keys = {"SEGMENTQL_S3_ACCESS_KEY": access_key, "SEGMENTQL_S3_SECRET_KEY": secret_key}
    if any(keys.values()):
        for name in (name for name, value in keys.items() if not value):
            (other,) = keys.keys() - {name}
            yield (
                f"{name} is not set, but {other} is: set both, or neither for the default"
                " credential chain"
            )
