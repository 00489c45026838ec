"""Stored users, deleted users, and the allocator of user ids."""

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from segmentql.tables.columns import USER_KEY_TEXT, Base, Timestamp, UserId


class UserRow(Base):
    """A stored user."""

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("id > 0", name="id_positive"),
        CheckConstraint(
            "length(key) BETWEEN 1 AND 255 AND key !~ '[\\u0001-\\u001f\\u007f-\\u009f]'",
            name="key_form",
        ),
        Index("uq_users_key", "key", unique=True, postgresql_where=text("key IS NOT NULL")),
    )

    id: Mapped[UserId] = mapped_column(primary_key=True, autoincrement=False)
    created_at: Mapped[Timestamp]
    insert_seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    """A sequence number in order of insertion. A rollout pass covers the users up to a number."""

    created_by: Mapped[str | None] = mapped_column(Text)
    created_by_api_key_id: Mapped[str | None] = mapped_column(Text)
    key: Mapped[str | None] = mapped_column(USER_KEY_TEXT)
    """The client's own name of the user. It is compared byte by byte and set at most once."""


class UserLifetimeRow(Base):
    """The time from the storing of a user to the deletion. A trigger writes it at the deletion."""

    __tablename__ = "user_lifetimes"
    __table_args__ = (
        # for the deletion of a key
        Index(None, "key", postgresql_where=text("key IS NOT NULL")),
    )

    user_id: Mapped[UserId] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    insert_seq: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[Timestamp]
    created_by: Mapped[str | None] = mapped_column(Text)
    created_by_api_key_id: Mapped[str | None] = mapped_column(Text)
    deleted_at: Mapped[Timestamp]
    deleted_by: Mapped[str | None] = mapped_column(Text)
    deleted_by_api_key_id: Mapped[str | None] = mapped_column(Text)
    key: Mapped[str | None] = mapped_column(USER_KEY_TEXT)
    """The key that the user had. Null if it had none, or if the key was erased."""


class DeletedUserRow(Base):
    """The id of a deleted user. `createUser` never allocates it again."""

    __tablename__ = "deleted_users"

    id: Mapped[UserId] = mapped_column(primary_key=True, autoincrement=False)
    deleted_at: Mapped[Timestamp]


class IdAllocatorRow(Base):
    """The last id that `createUser` allocated. The only row of the table; allocations lock it."""

    __tablename__ = "id_allocator"
    __table_args__ = (CheckConstraint("only", name="only_row"),)

    only: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    user_id: Mapped[UserId]
