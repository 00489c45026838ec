"""What a load client asks, and how it knows that an answer is right."""

import json
import random
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final

from bench.data import Sizes, slug

USER: Final = "query($id: ID!){user(id:$id){segments{slug}}}"
USERS: Final = "query($ids: [ID!]!){usersById(ids:$ids){segments{slug}}}"
CHANGE: Final = """
mutation($input: UpdateUserSegmentsInput!) {
  updateUserSegments(input: $input) { segmentsAdded segmentsRemoved errors { code } }
}
"""

POSTGRAPHILE_USER: Final = """
query($id: BigInt!) {
  userByRowId(rowId: $id) { membershipsByUserId { nodes { segmentBySegmentId { slug } } } }
}
"""
POSTGRAPHILE_USERS: Final = """
query($ids: [BigInt!]!) {
  usersById: peerUsersById(ids: $ids) {
    nodes { rowId membershipsByUserId { nodes { segmentBySegmentId { slug } } } }
  }
}
"""

BATCH_USERS: Final = 100

ROLLOUT: Final = "rollout-"
"""What the slugs of segments with a rollout begin with."""


class Ask(ABC):
    """One kind of request; `about` is what a request is about: user numbers.

    `share` is which part of all users is this load's, of how many: no two loads change the same.
    """

    path: ClassVar[str] = "/graphql"

    def __init__(
        self, sizes: Sizes, generator: random.Random, share: tuple[int, int] = (0, 1)
    ) -> None:
        self.sizes = sizes
        self.random = generator
        self.share = share

    @abstractmethod
    def body(self) -> tuple[bytes, Any]:
        """The next request's body, and what it is about."""

    @abstractmethod
    def problem(self, about: Any, answer: Any) -> str | None:
        """What is wrong with an answer; None: nothing."""

    def failed(self, answer: bytes) -> bool:
        """Whether an answer tells errors; asked of each, so it parses nothing."""
        return b'"errors"' in answer

    def a_user(self) -> int:
        return self.random.randrange(1, self.sizes.users + 1)

    def slugs(self, user_id: int) -> list[str]:
        """A user's segments in the order in which they are answered."""
        return sorted(map(slug, self.sizes.segments_of(user_id)))


def _post(query: str, variables: Any) -> bytes:
    return json.dumps({"query": query, "variables": variables}, separators=(",", ":")).encode()


def _slugs(user: Any) -> list[str]:
    return [segment["slug"] for segment in user["segments"]]


def _difference(expected: Any, found: Any) -> str | None:
    return None if found == expected else f"expected {expected}, found {found}"


class OneUser(Ask):
    """A random user's segments."""

    # Made once; the rest is the number. A client that costs more than the server measures itself.
    _before, _after = _post(USER, {"id": "@"}).split(b"@")

    def body(self) -> tuple[bytes, int]:
        user_id = self.a_user()
        return b"%b%d%b" % (self._before, user_id, self._after), user_id

    def problem(self, about: int, answer: Any) -> str | None:
        return _difference(self.slugs(about), _slugs(answer["data"]["user"]))


class OneUserInRollouts(OneUser):
    """The same, leaving out of account what rollouts do meanwhile."""

    def problem(self, about: int, answer: Any) -> str | None:
        found = [name for name in _slugs(answer["data"]["user"]) if not name.startswith(ROLLOUT)]
        return _difference(self.slugs(about), found)


class ManyUsers(Ask):
    """100 random users' segments."""

    query: ClassVar[str] = USERS

    def body(self) -> tuple[bytes, list[int]]:
        user_ids = [self.a_user() for _ in range(BATCH_USERS)]
        return _post(self.query, {"ids": list(map(str, user_ids))}), user_ids

    def problem(self, about: list[int], answer: Any) -> str | None:
        users = answer["data"]["usersById"]
        return _difference([self.slugs(user_id) for user_id in about], list(map(_slugs, users)))


class Change(Ask):
    """A user who was not changed before joins two segments and leaves two."""

    def __init__(
        self, sizes: Sizes, generator: random.Random, share: tuple[int, int] = (0, 1)
    ) -> None:
        super().__init__(sizes, generator, share)
        part, parts = share
        self._unchanged = list(range(part + 1, sizes.users + 1, parts))
        generator.shuffle(self._unchanged)

    def body(self) -> tuple[bytes, int]:
        user_id = self._unchanged.pop()
        change = {
            "userId": str(user_id),
            "add": [slug(self.sizes.nth_segment(user_id, nth)) for nth in JOINED],
            "remove": [slug(self.sizes.nth_segment(user_id, nth)) for nth in LEFT],
        }
        return _post(CHANGE, {"input": change}), user_id

    def failed(self, answer: bytes) -> bool:
        return b'"errors":[]' not in answer or answer.count(b'"errors"') != 1

    def problem(self, about: int, answer: Any) -> str | None:
        expected = {"segmentsAdded": 2, "segmentsRemoved": 2, "errors": []}
        return _difference(expected, answer["data"]["updateUserSegments"])


class ShortTtl(Change):
    """A user who was not changed before joins a segment for one to three seconds."""

    def body(self) -> tuple[bytes, int]:
        user_id = self._unchanged.pop()
        change = {
            "userId": str(user_id),
            "add": [slug(self.sizes.nth_segment(user_id, JOINED[0]))],
            "ttlSeconds": self.random.randint(1, 3),
        }
        return _post(CHANGE, {"input": change}), user_id

    def problem(self, about: int, answer: Any) -> str | None:
        expected = {"segmentsAdded": 1, "segmentsRemoved": 0, "errors": []}
        return _difference(expected, answer["data"]["updateUserSegments"])


JOINED: Final = (-1, -2)
LEFT: Final = (0, 1)
"""Which of a user's segments a change adds and removes: see `Sizes.nth_segment`."""


class ReferenceOneUser(OneUser):
    path = "/"


class ReferenceManyUsers(ManyUsers):
    path = "/"


class PostGraphileOneUser(OneUser):
    _before, _after = _post(POSTGRAPHILE_USER, {"id": "@"}).split(b"@")

    def problem(self, about: int, answer: Any) -> str | None:
        return _difference(self.slugs(about), _peers_slugs(answer["data"]["userByRowId"]))


class PostGraphileManyUsers(ManyUsers):
    query = POSTGRAPHILE_USERS

    def problem(self, about: list[int], answer: Any) -> str | None:
        # In no order, and each once.
        users = answer["data"]["usersById"]["nodes"]
        found = {int(user["rowId"]): _peers_slugs(user) for user in users}
        return _difference({user_id: self.slugs(user_id) for user_id in about}, found)


def _peers_slugs(user: Any) -> list[str]:
    nodes = user["membershipsByUserId"]["nodes"]
    return sorted(node["segmentBySegmentId"]["slug"] for node in nodes)


ASKS: Final[dict[str, type[Ask]]] = {
    kind.__name__: kind
    for kind in (
        OneUser,
        OneUserInRollouts,
        ManyUsers,
        Change,
        ShortTtl,
        ReferenceOneUser,
        ReferenceManyUsers,
        PostGraphileOneUser,
        PostGraphileManyUsers,
    )
}
