"""The GraphQL requests to the peers, and the checks of their responses."""

from typing import Any, Final

from bench.queries import ManyUsers, OneUser, difference, post_body

CONSTANT_USER_ID: Final = 1
"""The user of the constant response, which is as large as the response to most other users."""

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


class ReferenceOneUser(OneUser):
    path = "/"


class ReferenceManyUsers(ManyUsers):
    path = "/"


class ConstantOneUser(OneUser):
    """A query for a random user, to a server that always returns the segments of one user."""

    def find_error(self, subject: int, response: Any) -> str | None:
        return super().find_error(CONSTANT_USER_ID, response)


class PostGraphileOneUser(OneUser):
    _before, _after = post_body(POSTGRAPHILE_USER, {"id": "@"}).split(b"@")

    def find_error(self, subject: int, response: Any) -> str | None:
        return difference(
            self.expected_slugs(subject), _postgraphile_slugs(response["data"]["userByRowId"])
        )


class PostGraphileManyUsers(ManyUsers):
    query = POSTGRAPHILE_USERS

    def find_error(self, subject: list[int], response: Any) -> str | None:
        # PostGraphile returns each user once, in no particular order.
        users = response["data"]["usersById"]["nodes"]
        slugs = {int(user["rowId"]): _postgraphile_slugs(user) for user in users}
        return difference({user_id: self.expected_slugs(user_id) for user_id in subject}, slugs)


def _postgraphile_slugs(user: Any) -> list[str]:
    nodes = user["membershipsByUserId"]["nodes"]
    return sorted(node["segmentBySegmentId"]["slug"] for node in nodes)
