"""The cache of the texts of stored documents, whose size is bounded."""

import asyncio

from segmentql.document_ids import hash_document
from segmentql.documents.loaders import CachedDocuments

A, B, C = "{ a }", "{ b }", "{ c }"


class Reads:
    """A store that counts its reads."""

    def __init__(self, *documents: str) -> None:
        self._texts = {hash_document(document): document for document in documents}
        self.texts: list[str | None] = []

    async def load(self, document_id: bytes) -> str | None:
        await asyncio.sleep(0)
        text = self._texts.get(document_id)
        self.texts.append(text)
        return text


async def find(cache: CachedDocuments, *documents: str) -> None:
    for document in documents:
        assert await cache.find(hash_document(document)) == document


async def test_least_recently_used_text_is_evicted() -> None:
    reads = Reads(A, B, C)
    cache = CachedDocuments(reads.load, max_bytes=2 * len(A))
    await find(cache, A, B, A, C)  # C evicts B
    await find(cache, A, C)
    assert reads.texts == [A, B, C]
    await find(cache, B)
    assert reads.texts == [A, B, C, B]


async def test_size_is_counted_in_bytes() -> None:
    wide = '{ user(key: "ääää") }'
    reads = Reads(wide)
    cache = CachedDocuments(reads.load, max_bytes=len(wide))  # one byte more for each ä
    await find(cache, wide, wide)
    assert reads.texts == [wide, wide]


async def test_concurrent_reads_of_one_document_count_once() -> None:
    reads = Reads(A, B)
    cache = CachedDocuments(reads.load, max_bytes=2 * len(A))
    await asyncio.gather(find(cache, A), find(cache, A))
    await find(cache, B, A)
    assert reads.texts == [A, A, B]


async def test_unknown_id_is_read_each_time() -> None:
    reads = Reads()
    cache = CachedDocuments(reads.load)
    for _ in range(2):
        assert await cache.find(hash_document(A)) is None
    assert reads.texts == [None, None]


async def test_document_of_the_package_is_never_read() -> None:
    reads = Reads()
    await find(CachedDocuments(reads.load, [A, B], max_bytes=0), A, B, A)
    assert reads.texts == []
