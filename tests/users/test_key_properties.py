"""Users, keys and history agree with a small model after any sequence of operations by id and key.

The model has every lifetime of every user, with its key and the number of its history entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from segmentql.adapters.database import Database
from segmentql.errors import InvalidInput, MutationRejected, UserAlreadyExists, UserNotFound
from segmentql.history.records import HistoryPage
from segmentql.history.service import history_pages, user_keys_at
from segmentql.memberships.reads import users_with_segments_by_key
from segmentql.memberships.service import update_user_segments
from segmentql.principal import NO_ACTOR
from segmentql.segments.service import create_segment
from segmentql.users import service
from segmentql.validators import MAX_PAGE_ROWS
from tests.conftest import Sql, empty_tables

IDS = (1, 2)
KEYS = ("a", "A", "é")
FIRST_ID = 100_000_000_000_000

UNKNOWN_ID = 0
"""The id of a new user by key, until it is read. A rejected change may leave a gap in the ids."""

User: TypeAlias = int | str
"""A user by id or by key."""


@dataclass
class Lifetime:
    """The time of a user from storing to deletion."""

    user_id: int
    key: str | None
    entries: int = 0
    """The number of its joins and leaves."""
    is_member: bool = False
    is_stored: bool = True


@dataclass
class Model:
    """The expected state. A method returns the types of the reasons if it rejects a change."""

    lifetimes: list[Lifetime] = field(default_factory=list)

    def stored(self, user: User | None) -> Lifetime | None:
        return next(
            (
                lifetime
                for lifetime in self.lifetimes
                if lifetime.is_stored and user in (lifetime.user_id, lifetime.key)
            ),
            None,
        )

    def store(self, user_id: int | None, key: str | None) -> Lifetime:
        self.lifetimes.append(Lifetime(user_id or UNKNOWN_ID, key))
        return self.lifetimes[-1]

    def create(self, user_id: int | None, key: str | None) -> list[type]:
        conflicts = [user for user in (user_id, key) if user is not None and self.stored(user)]
        if not conflicts:
            self.store(user_id, key)
        return [UserAlreadyExists] * len(conflicts)

    def change(self, user: User, *, add: bool) -> list[type]:
        key = user if isinstance(user, str) else None
        lifetime = self.stored(user) or self.store(None if key else int(user), key)
        if lifetime.is_member != add:
            lifetime.is_member = add
            lifetime.entries += 1
        return []

    def set_key(self, user_id: int, key: str) -> list[type]:
        lifetime = self.stored(user_id)
        if lifetime is None:
            return [UserNotFound]
        if lifetime.key == key:
            return []
        if lifetime.key is not None:
            return [InvalidInput]
        if self.stored(key):
            return [UserAlreadyExists]
        lifetime.key = key
        return []

    def delete(self, user: User, *, erase: bool) -> list[type]:
        lifetime = self.stored(user)
        if lifetime:
            lifetime.is_stored = False
            lifetime.entries += lifetime.is_member
        elif erase:
            deleted = [one for one in self.lifetimes if user in (one.user_id, one.key)]
            lifetime = deleted[-1] if deleted else None
        if lifetime is None:
            return [UserNotFound]
        if erase:
            of_user = [one for one in self.lifetimes if one.user_id == lifetime.user_id]
            keys = {one.key for one in of_user if not one.is_stored}
            for one in self.lifetimes:
                if not one.is_stored and one.key in keys:
                    one.key = None
        return []


@dataclass(frozen=True)
class Create:
    user_id: int | None
    key: str | None

    def model(self, model: Model) -> list[type]:
        return model.create(self.user_id, self.key)

    def work(self) -> Any:
        return partial(service.create_user, user_id=self.user_id, user_key=self.key, actor=NO_ACTOR)


@dataclass(frozen=True)
class Change:
    user: User
    add: bool

    def model(self, model: Model) -> list[type]:
        return model.change(self.user, add=self.add)

    def work(self) -> Any:
        add, remove = (["S"], []) if self.add else ([], ["S"])
        return partial(
            update_user_segments, **named(self.user), add=add, remove=remove, actor=NO_ACTOR
        )


@dataclass(frozen=True)
class SetKey:
    user_id: int
    key: str

    def model(self, model: Model) -> list[type]:
        return model.set_key(self.user_id, self.key)

    def work(self) -> Any:
        return partial(service.set_user_key, user_id=self.user_id, user_key=self.key)


@dataclass(frozen=True)
class Delete:
    user: User
    erase: bool

    def model(self, model: Model) -> list[type]:
        return model.delete(self.user, erase=self.erase)

    def work(self) -> Any:
        values = {**named(self.user), "erase_key": self.erase}
        return partial(service.delete_user, **values, actor=NO_ACTOR)


Step: TypeAlias = Create | Change | SetKey | Delete


def named(user: User) -> dict[str, Any]:
    return {"user_key": user} if isinstance(user, str) else {"user_id": user}


def steps() -> st.SearchStrategy[list[Step]]:
    ids, keys = st.sampled_from(IDS), st.sampled_from(KEYS)
    creation = st.one_of(
        st.builds(Create, ids, st.none() | keys), st.builds(Create, st.none(), keys)
    )
    change = st.builds(Change, ids | keys, st.sampled_from([True, True, False]))
    deletion = st.builds(Delete, ids | keys, st.booleans())
    return st.lists(
        st.one_of(change, creation, st.builds(SetKey, ids, keys), deletion, change, deletion),
        min_size=10,
        max_size=20,
    )


async def reasons_of(database: Database, work: Any) -> list[type]:
    """Run a change, and return the types of the reasons if it is rejected."""
    try:
        await database.transaction(work)
    except MutationRejected as rejected:
        return [type(reason) for reason in rejected.reasons]
    return []


async def read_new_id(sql: Sql, model: Model) -> None:
    """Read the id of the user that the last step stored by key. The id was never used before."""
    used_ids = {lifetime.user_id for lifetime in model.lifetimes}
    for lifetime in model.lifetimes:
        if lifetime.user_id == UNKNOWN_ID:
            query = "SELECT id FROM users WHERE key = $1"
            lifetime.user_id = await sql.fetchval(query, lifetime.key)
            assert lifetime.user_id >= FIRST_ID
            assert lifetime.user_id not in used_ids


async def assert_same(database: Database, sql: Sql, model: Model) -> None:
    rows = await sql.fetch("SELECT id, key FROM users ORDER BY id")
    assert [tuple(row) for row in rows] == sorted(
        (lifetime.user_id, lifetime.key) for lifetime in model.lifetimes if lifetime.is_stored
    )
    async with database.read() as session:
        found = await users_with_segments_by_key(session, KEYS)
    assert {key: (user.user_id, bool(user.segments)) for key, user in found.items()} == {
        lifetime.key: (lifetime.user_id, lifetime.is_member)
        for lifetime in model.lifetimes
        if lifetime.is_stored and lifetime.key is not None
    }


async def keys_of_history(database: Database, user_ids: Sequence[int]) -> dict[int, list[Any]]:
    """Return the user's key of each history entry of each user, oldest first."""
    pages = [HistoryPage(MAX_PAGE_ROWS, user_id=user_id) for user_id in user_ids]
    async with database.read() as session:
        found = await history_pages(session, pages)
        moments = [(entry.user_id, entry.at) for page in pages for entry in found.get(page, [])]
        keys = await user_keys_at(session, moments) if moments else {}
    return {
        page.user_id or 0: [
            keys[entry.user_id, entry.at] for entry in reversed(found.get(page, []))
        ]
        for page in pages
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps())
@example(
    # The key moves from user to user, and one of them is erased by id and stored again.
    steps=[
        Create(1, "a"),
        Change("a", add=True),
        Delete(1, erase=False),
        Change("a", add=True),
        Delete("a", erase=False),
        Change(1, add=True),
        SetKey(1, "A"),
        Change("a", add=True),
        Delete(1, erase=True),
        Change(1, add=True),
        Delete("a", erase=True),
        SetKey(1, "a"),
    ]
)
async def test_keys_agree_with_the_model(sql: Sql, database: Database, steps: list[Step]) -> None:
    await empty_tables(sql)
    await database.transaction(
        lambda session: create_segment(
            session, slug="S", name=None, description=None, actor=NO_ACTOR
        )
    )
    model = Model()
    for step in steps:
        expected = step.model(model)
        assert await reasons_of(database, step.work()) == expected, step
        await read_new_id(sql, model)
        await assert_same(database, sql, model)
    user_ids = sorted({lifetime.user_id for lifetime in model.lifetimes})
    assert await keys_of_history(database, user_ids) == {
        user_id: [
            lifetime.key
            for lifetime in model.lifetimes
            if lifetime.user_id == user_id
            for _ in range(lifetime.entries)
        ]
        for user_id in user_ids
    }
    rows = await sql.fetch("SELECT user_id, key FROM user_lifetimes ORDER BY id")
    deleted = [(one.user_id, one.key) for one in model.lifetimes if not one.is_stored]
    assert sorted(map(tuple, rows), key=str) == sorted(deleted, key=str)
