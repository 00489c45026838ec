"""The idempotency keys of a request: the directive `@idempotent` and the header `Idempotency-Key`.

The directive is declared on the schema of graphql-core. A directive of Strawberry would come with
an extension that wraps the resolver of every field.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from graphql.execution.values import VariableValues

from graphql import (
    DirectiveLocation,
    DocumentNode,
    FieldNode,
    GraphQLArgument,
    GraphQLDirective,
    GraphQLError,
    GraphQLField,
    GraphQLNonNull,
    GraphQLSchema,
    GraphQLString,
    OperationDefinitionNode,
    StringValueNode,
    ValidationRule,
    ValueNode,
    VariableNode,
    get_argument_values,
)
from segmentql import validators
from segmentql.errors import BadValue
from segmentql.graphql.context import Context
from segmentql.graphql.execution.fingerprints import fingerprint
from segmentql.graphql.selections import Fragments, SelectionWalker, fragments_of
from segmentql.graphql.types.errors import Code, bad_request
from segmentql.graphql.types.idempotency import (
    DIRECTIVE_NAME,
    IdempotentCall,
    RequestIdempotencyKeys,
)

HEADER_NAME: Final = "Idempotency-Key"
KEY_ARGUMENT: Final = "key"

IDEMPOTENT: Final = GraphQLDirective(
    DIRECTIVE_NAME,
    [DirectiveLocation.FIELD],
    {
        KEY_ARGUMENT: GraphQLArgument(
            GraphQLNonNull(GraphQLString),
            description="The key: 1 to 255 characters without control characters. It belongs to"
            " the API key that sends it.",
        )
    },
    description="Executes a mutation once. If a mutation with the same key and input was executed"
    " in the last 24 hours, nothing is changed, and the payload has the ids and counts of the first"
    " one, with the entities as they are now. Only a field of `Mutation` may have it. The header"
    " `Idempotency-Key` has the same effect for an operation with one mutation.",
)

_KeyNode: TypeAlias = tuple[str, ValueNode]
"""The name of a root field in the response, and the value of its directive's argument."""


def declare_idempotent(schema: GraphQLSchema) -> None:
    """Add the directive `@idempotent` to a schema."""
    schema.directives = (*schema.directives, IDEMPOTENT)


class IdempotentFieldRule(ValidationRule):
    """The validation rule that only fields of `Mutation` have the directive."""

    def enter_field(self, node: FieldNode, *_: Any) -> None:
        if not any(directive.name.value == DIRECTIVE_NAME for directive in node.directives or ()):
            return
        parent = self.context.get_parent_type()
        if parent is not self.context.schema.mutation_type or node.name.value.startswith("__"):
            message = f"Only a field of Mutation can have @{DIRECTIVE_NAME}."
            self.report_error(GraphQLError(message, node, extensions={"code": Code.BAD_REQUEST}))


class RootFieldKeys:
    """The root fields of a mutation and the keys in their directives."""

    def __init__(self, document: DocumentNode, operation: OperationDefinitionNode) -> None:
        finder = _RootFieldFinder(fragments_of(document))
        finder.walk(operation.selection_set, None)
        self._fields = finder.fields
        self._key_nodes = finder.key_nodes
        self._defaults = {
            definition.variable.name.value: definition.default_value
            for definition in operation.variable_definitions or ()
        }
        self.has_directives = bool(finder.key_nodes)

    def read(self, header: bytes | None, variables: Mapping[str, Any]) -> dict[str, str]:
        """Return the keys of the root fields by their names in the response.

        Args:
            header: The value of the header `Idempotency-Key`, if the request has it.
            variables: The variables of the request, which are not coerced yet.

        Raises:
            GraphQLError: A key is not valid, a field has two keys, or the header is used with an
                operation that has not exactly one mutation (BAD_REQUEST).
        """
        keys: dict[str, str] = {}
        for field, node in self._key_nodes:
            _add_key(keys, field, _check_key(self._value(node, variables), f"@{DIRECTIVE_NAME}"))
        if header is not None:
            if len(self._fields) != 1:
                raise header_needs_mutation()
            (field,) = self._fields
            _add_key(keys, field, _check_key(_decode(header), HEADER_NAME))
        return keys

    def _value(self, node: ValueNode, variables: Mapping[str, Any]) -> object:
        if isinstance(node, VariableNode):
            name = node.name.value
            if name in variables:
                return variables[name]
            default = self._defaults.get(name)
            return default.value if isinstance(default, StringValueNode) else None
        return node.value if isinstance(node, StringValueNode) else None


def header_needs_mutation() -> GraphQLError:
    """Return the error of the header with an operation that has not exactly one mutation."""
    return bad_request(
        HEADER_NAME,
        "the operation does not have exactly one mutation",
        f"the header with an operation with one mutation; @{DIRECTIVE_NAME} for several",
    )


def _decode(header: bytes) -> str:
    # Bytes that are not UTF-8 become surrogates, which no key may have.
    return header.decode("utf-8", "surrogateescape")


def _check_key(value: object, source: str) -> str:
    try:
        return validators.idempotency_key(value)
    except BadValue as bad:
        raise bad_request(source, bad.problem, bad.allowed) from None


def _add_key(keys: dict[str, str], field: str, key: str) -> None:
    if keys.setdefault(field, key) != key:
        raise bad_request(field, "the mutation has two idempotency keys", "one key")


class _RootFieldFinder(SelectionWalker[None, None]):
    """A walk that finds the root fields of a mutation and the arguments of their directives."""

    empty = None

    def __init__(self, fragments: Fragments) -> None:
        super().__init__(fragments)
        self.fields: set[str] = set()
        self.key_nodes: list[_KeyNode] = []

    def field(self, node: FieldNode, scope: None) -> None:
        if node.name.value.startswith("__"):
            return
        name = (node.alias or node.name).value
        self.fields.add(name)
        for directive in node.directives or ():
            if directive.name.value == DIRECTIVE_NAME:
                self.key_nodes.extend(
                    (name, argument.value) for argument in directive.arguments or ()
                )

    def combine(self, total: None, value: None) -> None:
        return None


def find_idempotent_call(
    context: Context, response_name: str, field_name: str, field: GraphQLField, arguments: Any
) -> IdempotentCall | None:
    """Return the call of a root field, or None if it has no key.

    Args:
        context: The context of the request.
        response_name: The name of the field in the response.
        field_name: The name of the field in the schema.
        field: The definition of the field.
        arguments: The arguments as graphql-core coerces them.
    """
    keys = context.idempotency_keys
    key = keys.by_field.get(response_name) if keys else None
    if key is None:
        return None
    return IdempotentCall(context.principal.key_id, key, fingerprint(field_name, field, arguments))


def compile_idempotent_call(
    response_name: str, field: GraphQLField, node: FieldNode
) -> Callable[[Context, VariableValues], IdempotentCall | None]:
    """Return a function that returns the call of a root field for a plan."""

    def read(context: Context, variables: VariableValues) -> IdempotentCall | None:
        arguments = get_argument_values(field, node, variables)
        return find_idempotent_call(context, response_name, node.name.value, field, arguments)

    return read


def read_idempotency_keys(
    root_field_keys: RootFieldKeys | None, context: Context, variables: Mapping[str, Any] | None
) -> None:
    """Read the keys of a request with the header or a directive into its context.

    Args:
        root_field_keys: The root fields of the operation; None if it is not a mutation.
        context: The context of the request.
        variables: The variables of the request.

    Raises:
        GraphQLError: The keys are not valid (BAD_REQUEST).
    """
    keys = context.idempotency_keys
    if root_field_keys is None:
        if keys is not None:
            raise header_needs_mutation()
        return
    if keys is None:
        if not root_field_keys.has_directives:
            return
        keys = context.idempotency_keys = RequestIdempotencyKeys()
    keys.by_field = root_field_keys.read(keys.header, variables or {})
