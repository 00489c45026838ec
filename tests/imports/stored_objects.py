"""The objects in the store."""

from segmentql.adapters.storage import Storage


async def object_keys(storage: Storage) -> set[str]:
    """Return the keys of all objects in the bucket."""
    client = await storage._s3.client()
    keys: set[str] = set()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=storage._bucket)
    async for page in pages:
        keys |= {item["Key"] for item in page.get("Contents", [])}
    return keys
