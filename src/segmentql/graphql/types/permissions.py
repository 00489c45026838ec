"""What a field needs its caller to be; a query's field without one is for every role.

    @strawberry.mutation(permission_classes=[NeedsEditor], description="... Needs EDITOR.")

Every mutation has one; `tests/keys/test_permissions.py` holds that, and that its description says
so. A refusal is an error of that field alone: its neighbours still run.
"""

from typing import Any, ClassVar

import strawberry
from strawberry.permission import BasePermission

from segmentql.graphql.context import Context
from segmentql.graphql.types.errors import forbidden
from segmentql.tables import Role


def require(info: strawberry.Info[Context, Any], role: Role, what: str | None = None) -> None:
    """Refuse a caller whose role is below that one; `what` is it that needs it, else the field.

    Raises:
        GraphQLError: with code FORBIDDEN.
    """
    principal = info.context.principal
    if not principal.has_role(role):
        raise forbidden(what or info.field_name, needed=role, held=principal.role)


class Needs(BasePermission):
    """A permission by role; the subclasses say which."""

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
