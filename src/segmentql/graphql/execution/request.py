"""A GraphQL request, as the transports pass it to the executor."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_COERCION_ERRORS: Final = 20
"""The maximum number of errors about the variables in a response."""


@dataclass(slots=True)  # not frozen, because creating a frozen object takes three times as long
class Request:
    """A GraphQL request whose document and variables are not yet validated."""

    query: str
    variables: Mapping[str, Any] | None = None
    operation_name: str | None = None
