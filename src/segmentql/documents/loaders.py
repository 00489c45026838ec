"""Batched reads of trusted documents, and the cache of their texts in a process."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import ClassVar, Final

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.document_ids import hash_document
from segmentql.documents import service
from segmentql.graphql.execution.request_documents import StoredDocuments
from segmentql.graphql.types.dataloader import Loader, LoaderRegistry

MAX_CACHED_BYTES: Final = 8 * 1024 * 1024
"""The maximum size of all cached texts of a process together, in bytes of UTF-8."""


class DocumentTextById(Loader[bytes, str | None]):
    """The text of a document by its id; None if there is none."""

    max_concurrent_batches: ClassVar[int] = 1
    """A client that sends unknown ids causes larger batches, not more statements."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[bytes]
    ) -> Mapping[bytes, str | None]:
        return await service.document_texts(session, keys)

    def on_missing(self, key: bytes) -> None:
        return None


class CachedDocuments(StoredDocuments):
    """The stored documents, with a least recently used cache, and the documents of the package.

    A document never changes, so a cached text is always correct. An unknown id is read again by
    each request, so that a document can be executed as soon as its push is committed.
    """

    def __init__(
        self,
        load: Callable[[bytes], Awaitable[str | None]],
        package_documents: Iterable[str] = (),
        *,
        max_bytes: int = MAX_CACHED_BYTES,
    ) -> None:
        """Create the cache.

        Args:
            load: The read of a text by its id.
            package_documents: The texts of documents that need no push.
            max_bytes: The maximum size of all cached texts together, in bytes of UTF-8.
        """
        self._load = load
        self._package_documents = {hash_document(text): text for text in package_documents}
        self._max_bytes = max_bytes
        self._texts: OrderedDict[bytes, str] = OrderedDict()
        self._bytes = 0

    async def find(self, document_id: bytes) -> str | None:
        """Return the text of a document; None if no document has the id."""
        text = self._package_documents.get(document_id) or self._texts.get(document_id)
        if text is None:
            text = await self._load(document_id)
            if text is not None:
                self._put(document_id, text)
        elif document_id in self._texts:
            self._texts.move_to_end(document_id)
        return text

    def _put(self, document_id: bytes, text: str) -> None:
        if document_id in self._texts:  # by another request meanwhile
            return
        self._texts[document_id] = text
        self._bytes += len(text.encode())
        while self._bytes > self._max_bytes:
            _, evicted = self._texts.popitem(last=False)
            self._bytes -= len(evicted.encode())


def stored_documents(database: Database, package_documents: Iterable[str]) -> CachedDocuments:
    """Return the documents that clients may name by their ids.

    They are read from the primary, because a replica may not have a document yet whose push is
    committed.

    Args:
        database: The database.
        package_documents: The texts of documents that need no push.
    """
    loader = LoaderRegistry(database, primary=True).get(DocumentTextById)
    return CachedDocuments(loader.load, package_documents)
