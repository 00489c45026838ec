"""Records of idempotency keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A mutation with an idempotency key whose transaction was committed."""

    fingerprint: bytes
    """The fingerprint of the mutation and its input."""
    result: Mapping[str, Any]
    """The ids and counts of its payload."""
