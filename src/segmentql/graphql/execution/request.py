"""A GraphQL request, as the transports pass it to the executor."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_COERCION_ERRORS: Final = 20
"""The maximum number of errors about the variables in a response."""


@dataclass(slots=True)  # not frozen, because creating a frozen object takes three times as long
class Request:
    """A GraphQL request whose document and variables are not yet validated."""

    query: str | None
    """The document; None if the request has only an id."""
    variables: Mapping[str, Any] | None = None
    operation_name: str | None = None
    document_id: bytes | None = None
    """The id of a stored document. If it is None, too, the request is an automatic persisted query,
    which names a document that the client has not pushed."""
