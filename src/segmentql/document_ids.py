"""The ids of documents by the GraphQL-over-HTTP specification: `sha256:` and the hash of the text.

Source: https://github.com/graphql/graphql-over-http/blob/main/spec/Appendix%20A%20--%20Persisted%20Documents.md
"""

import hashlib
import re
from typing import Final

ID_PREFIX: Final = "sha256:"

ALLOWED_ID: Final = "`sha256:` and 64 hexadecimal digits in lower case"
"""The description of a valid id."""

_ID: Final = re.compile(rf"{ID_PREFIX}([0-9a-f]{{64}})")


def hash_document(document: str) -> bytes:
    """Return the SHA-256 hash of a document's text in UTF-8.

    Raises:
        UnicodeEncodeError: The text has an unpaired surrogate.
    """
    return hashlib.sha256(document.encode()).digest()


def parse_document_id(document_id: str) -> bytes | None:
    """Return the hash in an id; None if the id does not have the form `ALLOWED_ID`."""
    match = _ID.fullmatch(document_id)
    return bytes.fromhex(match[1]) if match else None


def format_document_id(document_hash: bytes) -> str:
    """Return the id with a hash."""
    return f"{ID_PREFIX}{document_hash.hex()}"
