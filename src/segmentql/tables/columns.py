"""The base class of all tables, and column types that several tables use."""

from datetime import datetime
from typing import Annotated

from sqlalchemy import BigInteger, MetaData, Text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, mapped_column

SLUG_TEXT = Text(collation="C")
USER_KEY_TEXT = Text(collation="C")
TIMESTAMPTZ = TIMESTAMP(timezone=True)
Timestamp = Annotated[datetime, mapped_column(TIMESTAMPTZ)]
UserId = Annotated[int, mapped_column(BigInteger)]


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )
