"""API keys."""

import enum

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Enum,
    Identity,
    LargeBinary,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from segmentql.tables.columns import Base, Timestamp


class Role(enum.StrEnum):
    """The role of an API key. Each role includes the permissions of the roles before it."""

    EVALUATOR = "EVALUATOR"
    READER = "READER"
    EDITOR = "EDITOR"
    ADMIN = "ADMIN"


KEY_ROLE = Enum(Role, name="key_role")


class ApiKeyRow(Base):
    """An API key. Only a hash of its secret is stored. The row remains after revocation."""

    __tablename__ = "api_keys"
    __table_args__ = (
        UniqueConstraint("public_id"),
        CheckConstraint("public_id ~ '^[a-z0-9]{12}$'", name="public_id_form"),
        CheckConstraint("length(name) BETWEEN 1 AND 255", name="name_length"),
        CheckConstraint("length(secret_hash) = 32", name="secret_hash_length"),
    )

    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    public_id: Mapped[str] = mapped_column(Text(collation="C"))
    """The part of the key that is not secret and may be logged."""

    name: Mapped[str] = mapped_column(Text)
    role: Mapped[Role] = mapped_column(KEY_ROLE)
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the secret. A slower hash is not needed: 256 random bits cannot be guessed."""

    created_at: Mapped[Timestamp]
    created_by: Mapped[str | None] = mapped_column(Text)
    revoked_at: Mapped[Timestamp | None]
    revoked_by: Mapped[str | None] = mapped_column(Text)
    last_used_at: Mapped[Timestamp | None]
