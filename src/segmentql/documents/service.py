"""SQL of trusted documents. A document never changes."""

from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import text

from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.audit import service as audit
from segmentql.audit.records import AuditAction
from segmentql.document_ids import hash_document
from segmentql.principal import Actor

AUDIT_TARGET: Final = "documents"
"""The target of audit entries. An entry is about all documents of a push."""

# Inserts in the order of the ids, so that concurrent pushes do not wait for each other in a circle.
_STORE = text("""
INSERT INTO documents (id, text, created_at, created_by)
SELECT id, text, clock_timestamp(), :actor
FROM unnest(CAST(:ids AS bytea[]), CAST(:texts AS text[])) AS pushed (id, text)
ORDER BY id
ON CONFLICT (id) DO NOTHING
""")

_TEXTS = text("SELECT id, text FROM documents WHERE id = ANY(:ids)")


async def store_documents(
    session: WriteSession, documents: Collection[str], *, actor: Actor
) -> int:
    """Store valid documents. Documents that are already stored stay as they are.

    Args:
        session: The session.
        documents: The texts of the documents.
        actor: The author of the push.

    Returns:
        The number of documents that were not stored before.
    """
    ids = {hash_document(document): document for document in documents}
    stored = await session.count_affected(
        _STORE, {"ids": list(ids), "texts": list(ids.values()), "actor": actor.name}
    )
    if stored:
        await audit.record(
            session,
            actor=actor,
            action=AuditAction.DOCUMENTS_PUSHED,
            target=AUDIT_TARGET,
            after={"stored": stored},
        )
    return stored


async def document_texts(session: ReadSession, ids: Collection[bytes]) -> Mapping[bytes, str]:
    """Return the texts of documents by their ids; unknown ids are absent."""
    rows = await session.execute(_TEXTS, {"ids": list(ids)})
    return {row.id: row.text for row in rows}
