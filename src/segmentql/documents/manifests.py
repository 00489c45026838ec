"""The documents of a manifest, which the build of a client writes.

- GraphQL Code Generator (`persistedDocuments`) and Relay (`persistConfig`) write an object with the
  text of each document by its hash.
- Apollo (`generate-persisted-query-manifest`) writes a list of operations with `id` and `body`.

Each hash must be the SHA-256 hash of its text, because the server knows documents by this hash.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson

from segmentql.document_ids import ALLOWED_ID, ID_PREFIX, hash_document, parse_document_id
from segmentql.errors import BadValue

APOLLO_FORMAT: Final = "apollo-persisted-query-manifest"
APOLLO_VERSION: Final = 1

_ALLOWED: Final = (
    "a manifest of GraphQL Code Generator or Relay, an object with the text of each document by its"
    f" SHA-256 hash; or one of Apollo, an object with `format`: `{APOLLO_FORMAT}`"
)

_SHORTER_HASHES: Final = {32: "MD5", 40: "SHA-1"}
"""The names of the hashes that GraphQL Code Generator and Relay use by default, by their length."""

_USE_SHA256: Final = (
    f"{ALLOWED_ID}, or the digits alone. Set `persistConfig.algorithm` of Relay's compiler to"
    " `SHA256`, or `persistedDocuments.hashAlgorithm` of GraphQL Code Generator to `sha256`; do not"
    " set `createOperationId` of Apollo"
)


def parse_manifest(content: bytes) -> list[str]:
    """Return the texts of a manifest's documents.

    Args:
        content: The content of the file.

    Raises:
        BadValue: The content is not a manifest, or an id is not the SHA-256 hash of its text.
    """
    try:
        manifest = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BadValue(f"the file is not valid JSON: {error}", _ALLOWED) from None
    if not isinstance(manifest, dict):
        raise BadValue("the file has no JSON object", _ALLOWED)
    documents = _operations(manifest) if "format" in manifest else iter(manifest.items())
    texts = [_checked_text(document_id, text) for document_id, text in documents]
    if not texts:
        raise BadValue("the manifest has no documents", _ALLOWED)
    return texts


def read_manifest(file: Path) -> list[str]:
    """Return the texts of a manifest's documents; none if the file does not exist.

    Raises:
        BadValue: The file is not a manifest.
    """
    return parse_manifest(file.read_bytes()) if file.is_file() else []


def _operations(manifest: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the ids and texts of Apollo's manifest."""
    if manifest["format"] != APOLLO_FORMAT or manifest.get("version") != APOLLO_VERSION:
        raise BadValue(
            "the format or the version of the manifest is unknown",
            f"`format`: `{APOLLO_FORMAT}` with `version`: {APOLLO_VERSION}",
        )
    operations = manifest.get("operations")
    if not isinstance(operations, list):
        raise BadValue("`operations` is not a list", "a list of objects with `id` and `body`")
    for operation in operations:
        if not isinstance(operation, dict):
            raise BadValue("an operation is not an object", "an object with `id` and `body`")
        yield operation.get("id"), operation.get("body")


def _checked_text(given_id: Any, text: Any) -> str:
    if not isinstance(given_id, str) or not isinstance(text, str):
        raise BadValue("an id or a text is not a string", _ALLOWED)
    shown_id = given_id if len(given_id) <= len(ID_PREFIX) + 64 else f"{given_id[:64]}..."
    document_id = parse_document_id(ID_PREFIX + given_id.removeprefix(ID_PREFIX))
    if document_id is None:
        kind = _SHORTER_HASHES.get(len(given_id))
        reason = f"looks like a hash by {kind}" if kind else "is not a SHA-256 hash"
        raise BadValue(f'the id "{shown_id}" {reason}', _USE_SHA256)
    if hash_document(text) != document_id:
        raise BadValue(f'the id "{shown_id}" is not the SHA-256 hash of its text', _USE_SHA256)
    if "\0" in text:
        raise BadValue(f'the text of "{shown_id}" has the character U+0000', "a GraphQL document")
    return text
