"""The reference server: the same reads in plain Strawberry with a session per resolver.

It follows the documentation of Strawberry and SQLAlchemy: `strawberry.asgi.GraphQL`, an
AsyncSession in each resolver (a session serves one task at a time), and one uvicorn process. It
reads the same tables and applies the same filter of active memberships.
`python -m bench.reference PORT` runs it.
"""

import sys
from collections.abc import Sequence

import strawberry
import uvicorn
from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from strawberry.asgi import GraphQL

from segmentql.settings import load_settings
from segmentql.tables import MembershipRow, SegmentRow, UserRow

sessions = async_sessionmaker[AsyncSession](expire_on_commit=False)


@strawberry.type
class Segment:
    id: strawberry.ID
    slug: str


@strawberry.type
class User:
    id: strawberry.ID

    @strawberry.field
    async def segments(self) -> list[Segment]:
        active = or_(MembershipRow.expires_at.is_(None), MembershipRow.expires_at > func.now())
        statement = (
            select(SegmentRow)
            .join(MembershipRow, MembershipRow.segment_id == SegmentRow.id)
            .where(MembershipRow.user_id == int(self.id), SegmentRow.deleted_at.is_(None), active)
            .order_by(SegmentRow.slug)
        )
        async with sessions() as session:
            rows = await session.scalars(statement)
            return [Segment(id=strawberry.ID(str(row.id)), slug=row.slug) for row in rows]


@strawberry.type
class Query:
    @strawberry.field
    async def user(self, id: strawberry.ID) -> User | None:  # noqa: A002 - the name in the schema
        async with sessions() as session:
            row = await session.get(UserRow, int(id))
            return User(id=id) if row else None

    @strawberry.field
    async def users_by_id(self, ids: list[strawberry.ID]) -> list[User | None]:
        statement = select(UserRow).where(UserRow.id.in_([int(user_id) for user_id in ids]))
        async with sessions() as session:
            stored = {str(row.id) for row in await session.scalars(statement)}
            return [User(id=user_id) if user_id in stored else None for user_id in ids]


def main(arguments: Sequence[str]) -> None:
    settings = load_settings()
    # The same number of connections as the service.
    engine = create_async_engine(settings.database_url, pool_size=settings.database_pool_size)
    sessions.configure(bind=engine)
    app: GraphQL[None, None] = GraphQL(strawberry.Schema(Query))
    uvicorn.run(app, port=int(arguments[0]), access_log=False, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1:])
