"""Permissions by role: the role that a field requires.

    @strawberry.mutation(permission_classes=[NeedsEditor], description="... Needs EDITOR.")

Every mutation has a permission and names it in its description;
`tests/keys/test_permissions.py` checks both. A field of a query without permission is for every
role, except EVALUATOR (`execution/middleware.py`). A missing permission is an error of its field
only: the other fields are executed.
"""

from typing import Any, ClassVar

import strawberry
from strawberry.permission import BasePermission

from segmentql.graphql.context import Context
from segmentql.graphql.types.errors import forbidden
from segmentql.tables import Role


def require(info: strawberry.Info[Context, Any], role: Role, action: str | None = None) -> None:
    """Check that the caller has a role, or one above it.

    Args:
        info: The resolver's info.
        role: The required role.
        action: The action in the error message; by default, the name of the field.

    Raises:
        GraphQLError: The caller does not have the role (FORBIDDEN).
    """
    principal = info.context.principal
    if not principal.has_role(role):
        raise forbidden(action or info.field_name, needed=role, held=principal.role)


class Needs(BasePermission):
    """A permission that requires a role. Each subclass sets the role."""

    role: ClassVar[Role]

    def has_permission(
        self, source: Any, info: strawberry.Info[Context, Any], **kwargs: Any
    ) -> bool:
        require(info, self.role)
        return True


class NeedsReader(Needs):
    role = Role.READER


class NeedsEditor(Needs):
    role = Role.EDITOR


class NeedsAdmin(Needs):
    role = Role.ADMIN
