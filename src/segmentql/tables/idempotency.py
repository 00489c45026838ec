"""Idempotency keys."""

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, LargeBinary, Text
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from segmentql.tables.columns import Base, Timestamp


class IdempotencyKeyRow(Base):
    """The result of a mutation that a client may retry with the same key.

    The transaction of the mutation inserts the row before its changes and sets the result at its
    end. So a row that other transactions see has a result.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        # If authentication is off, all clients share the keys.
        Unique("key", "api_key_id", postgresql_nulls_not_distinct=True),
        CheckConstraint("length(key) BETWEEN 1 AND 255", name="key_length"),
        CheckConstraint("length(fingerprint) = 32", name="fingerprint_length"),
        Index(None, "created_at"),  # for the deletion of expired keys
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    api_key_id: Mapped[str | None] = mapped_column(Text(collation="C"))
    """The public part of the API key that sent the key. Null if authentication is off."""

    key: Mapped[str] = mapped_column(Text(collation="C"))
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the mutation's name and of its input."""

    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    """The ids and counts of the payload, without entities and secrets."""

    created_at: Mapped[Timestamp]
