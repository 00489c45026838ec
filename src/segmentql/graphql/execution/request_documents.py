"""The document of a request: its text, or the text of the stored document that it names."""

from abc import ABC, abstractmethod

from graphql import GraphQLError
from segmentql.errors import TimedOut, Unavailable
from segmentql.graphql.context import Context
from segmentql.graphql.execution.document_cache import DocumentCache, PreparedDocument
from segmentql.graphql.execution.request import Request
from segmentql.graphql.types.errors import Code


class StoredDocuments(ABC):
    """The stored documents, as the API process reads them."""

    @abstractmethod
    async def find(self, document_id: bytes) -> str | None:
        """Return the text of a document; None if no document has the id.

        Raises:
            Unavailable: The database is not available.
            TimedOut: The statement exceeded its time limit.
        """


class RequestDocuments:
    """The documents of requests to one schema."""

    def __init__(self, documents: DocumentCache, *, trusted_only: bool) -> None:
        """Create the object.

        Args:
            documents: The cache of prepared documents.
            trusted_only: Whether requests must name stored documents.
        """
        self._documents = documents
        self._trusted_only = trusted_only

    async def prepare(self, request: Request, context: Context) -> PreparedDocument:
        """Return the prepared document of a request, or its errors."""
        query = request.query
        if query is not None and not self._trusted_only:
            return await self._documents.prepare(query)
        if query is not None:
            return _rejected(_document_id_required())
        if request.document_id is None:
            return _rejected(_persisted_query_not_supported())
        try:
            text = await context.feature(StoredDocuments).find(request.document_id)  # type: ignore[type-abstract]
        except (Unavailable, TimedOut) as error:
            return _rejected(GraphQLError(str(error), original_error=error))
        if text is None:
            return _rejected(_document_not_found())
        return await self._documents.prepare(text, is_stored=True)


def _rejected(error: GraphQLError) -> PreparedDocument:
    return PreparedDocument(None, [error])


def _document_not_found() -> GraphQLError:
    """Return the error of an id that no stored document has."""
    return GraphQLError(
        "No stored document has this documentId. Store the client's documents with"
        " `segmentql documents push FILE`.",
        extensions={"code": Code.DOCUMENT_NOT_FOUND},
    )


def _document_id_required() -> GraphQLError:
    """Return the error of a text that is sent to a server that executes only stored documents."""
    return GraphQLError(
        "The server executes only stored documents. Send documentId instead of query, and store the"
        " client's documents with `segmentql documents push FILE`.",
        extensions={"code": Code.DOCUMENT_ID_REQUIRED},
    )


def _persisted_query_not_supported() -> GraphQLError:
    """Return the error of an automatic persisted query, after which clients send the text.

    Clients know the error by its code or by its message, which are those of Apollo Server.
    """
    return GraphQLError(
        "PersistedQueryNotSupported", extensions={"code": Code.PERSISTED_QUERY_NOT_SUPPORTED}
    )
