"""The GraphQL requests of the load client, and the checks of their responses."""

import itertools
import json
import random
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final

from bench.data import Sizes, slug, user_key

USER: Final = "query($id: ID!){user(id:$id){segments{slug}}}"
USERS: Final = "query($ids: [ID!]!){usersById(ids:$ids){segments{slug}}}"
USER_BY_KEY: Final = "query($key: String!){userByKey(key:$key){segments{slug}}}"
USERS_BY_KEY: Final = "query($keys: [String!]!){usersByKey(keys:$keys){segments{slug}}}"
UPDATE_SEGMENTS: Final = """
mutation($input: UpdateUserSegmentsInput!) {
  updateUserSegments(input: $input) { segmentsAdded segmentsRemoved errors { code } }
}
"""

BATCH_USERS: Final = 100

ROLLOUT: Final = "rollout-"
"""The prefix of the slugs of segments with a rollout."""


class GraphQLRequest(ABC):
    """A kind of request.

    A subject is the user id, or the list of user ids, that a request contains.
    """

    path: ClassVar[str] = "/graphql"

    def __init__(
        self, sizes: Sizes, generator: random.Random, shard: tuple[int, int] = (0, 1)
    ) -> None:
        """Create a kind of request.

        Args:
            sizes: The sizes of the data set.
            generator: The random number generator for the subjects.
            shard: The index and the number of disjoint shards of all users. A load that writes
                changes only the users of its shard.
        """
        self.sizes = sizes
        self.random = generator
        self.shard = shard

    @abstractmethod
    def next_body(self) -> tuple[bytes, Any]:
        """Return the body and the subject of the next request."""

    @abstractmethod
    def find_error(self, subject: Any, response: Any) -> str | None:
        """Return the difference between a response and the expected one, or None."""

    def has_errors(self, response: bytes) -> bool:
        """Return whether a response contains errors. It must be fast: it checks every response."""
        return b'"errors"' in response

    def random_user_id(self) -> int:
        return self.random.randrange(1, self.sizes.users + 1)

    def expected_slugs(self, user_id: int) -> list[str]:
        """Return the slugs of a user's segments in the order of the response."""
        return sorted(map(slug, self.sizes.segment_ids(user_id)))


def post_body(query: str, variables: Any) -> bytes:
    return json.dumps({"query": query, "variables": variables}, separators=(",", ":")).encode()


def _segment_slugs(user: Any) -> list[str]:
    return [segment["slug"] for segment in user["segments"]]


def difference(expected: Any, actual: Any) -> str | None:
    return None if actual == expected else f"expected {expected}, found {actual}"


class OneUser(GraphQLRequest):
    """A query for the segments of a random user."""

    # The body is serialized once, except the user id, so that the client is not the bottleneck.
    _before, _after = post_body(USER, {"id": "@"}).split(b"@")

    def next_body(self) -> tuple[bytes, int]:
        user_id = self.random_user_id()
        return b"%b%d%b" % (self._before, user_id, self._after), user_id

    def find_error(self, subject: int, response: Any) -> str | None:
        return difference(self.expected_slugs(subject), _segment_slugs(response["data"]["user"]))


class OneUserInRollouts(OneUser):
    """A query for the segments of a random user. Its check ignores segments with a rollout."""

    def find_error(self, subject: int, response: Any) -> str | None:
        slugs = [
            name
            for name in _segment_slugs(response["data"]["user"])
            if not name.startswith(ROLLOUT)
        ]
        return difference(self.expected_slugs(subject), slugs)


class ManyUsers(GraphQLRequest):
    """A query for the segments of 100 random users."""

    query: ClassVar[str] = USERS

    def next_body(self) -> tuple[bytes, list[int]]:
        user_ids = [self.random_user_id() for _ in range(BATCH_USERS)]
        return post_body(self.query, {"ids": list(map(str, user_ids))}), user_ids

    def find_error(self, subject: list[int], response: Any) -> str | None:
        users = response["data"]["usersById"]
        return difference(
            [self.expected_slugs(user_id) for user_id in subject], list(map(_segment_slugs, users))
        )


class OneUserByKey(GraphQLRequest):
    """A query for the segments of a random user, by the user's key."""

    _before, _after = post_body(USER_BY_KEY, {"key": "@"}).split(b"@")

    def next_body(self) -> tuple[bytes, int]:
        user_id = self.random_user_id()
        return b"%b%b%b" % (self._before, user_key(user_id).encode(), self._after), user_id

    def find_error(self, subject: int, response: Any) -> str | None:
        slugs = _segment_slugs(response["data"]["userByKey"])
        return difference(self.expected_slugs(subject), slugs)


class ManyUsersByKey(GraphQLRequest):
    """A query for the segments of 100 random users, by their keys."""

    def next_body(self) -> tuple[bytes, list[int]]:
        user_ids = [self.random_user_id() for _ in range(BATCH_USERS)]
        return post_body(USERS_BY_KEY, {"keys": list(map(user_key, user_ids))}), user_ids

    def find_error(self, subject: list[int], response: Any) -> str | None:
        users = response["data"]["usersByKey"]
        return difference(
            [self.expected_slugs(user_id) for user_id in subject], list(map(_segment_slugs, users))
        )


class UpdateSegments(GraphQLRequest):
    """A mutation that adds a user to two segments and removes the user from two, once per user."""

    def __init__(
        self, sizes: Sizes, generator: random.Random, shard: tuple[int, int] = (0, 1)
    ) -> None:
        super().__init__(sizes, generator, shard)
        shard_index, shards = shard
        self._unchanged_user_ids = list(range(shard_index + 1, sizes.users + 1, shards))
        generator.shuffle(self._unchanged_user_ids)

    def next_body(self) -> tuple[bytes, int]:
        user_id = self._unchanged_user_ids.pop()
        change = {
            "userId": str(user_id),
            "add": [slug(self.sizes.segment_at(user_id, index)) for index in ADDED_INDEXES],
            "remove": [slug(self.sizes.segment_at(user_id, index)) for index in REMOVED_INDEXES],
        }
        return post_body(UPDATE_SEGMENTS, {"input": change}), user_id

    def has_errors(self, response: bytes) -> bool:
        return b'"errors":[]' not in response or response.count(b'"errors"') != 1

    def find_error(self, subject: int, response: Any) -> str | None:
        expected = {"segmentsAdded": 2, "segmentsRemoved": 2, "errors": []}
        return difference(expected, response["data"]["updateUserSegments"])


class ShortTtl(UpdateSegments):
    """A mutation that adds a user to a segment for 1 to 3 seconds, once per user."""

    def next_body(self) -> tuple[bytes, int]:
        user_id = self._unchanged_user_ids.pop()
        change = {
            "userId": str(user_id),
            "add": [slug(self.sizes.segment_at(user_id, ADDED_INDEXES[0]))],
            "ttlSeconds": self.random.randint(1, 3),
        }
        return post_body(UPDATE_SEGMENTS, {"input": change}), user_id

    def find_error(self, subject: int, response: Any) -> str | None:
        expected = {"segmentsAdded": 1, "segmentsRemoved": 0, "errors": []}
        return difference(expected, response["data"]["updateUserSegments"])


class NewUser(UpdateSegments):
    """A mutation that stores a new user, by id, and adds the user to a segment."""

    def __init__(
        self, sizes: Sizes, generator: random.Random, shard: tuple[int, int] = (0, 1)
    ) -> None:
        super().__init__(sizes, generator, shard)
        shard_index, shards = shard
        self._new_user_ids = itertools.count(sizes.users + 1 + shard_index, shards)

    def next_body(self) -> tuple[bytes, int]:
        user_id = next(self._new_user_ids)
        return post_body(UPDATE_SEGMENTS, {"input": self._change(user_id)}), user_id

    def _change(self, user_id: int) -> dict[str, Any]:
        return {"userId": str(user_id), "add": [slug(self.sizes.segment_at(user_id, 0))]}

    def find_error(self, subject: int, response: Any) -> str | None:
        expected = {"segmentsAdded": 1, "segmentsRemoved": 0, "errors": []}
        return difference(expected, response["data"]["updateUserSegments"])


class NewUserByKey(NewUser):
    """A mutation that stores a new user, by key, and adds the user to a segment."""

    def _change(self, user_id: int) -> dict[str, Any]:
        key = user_key(user_id)
        return {"userKey": key, "add": [slug(self.sizes.segment_at(user_id, 0))]}


ADDED_INDEXES: Final = (-1, -2)
REMOVED_INDEXES: Final = (0, 1)
"""The indexes of the segments that an update adds and removes; see `Sizes.segment_at`."""
