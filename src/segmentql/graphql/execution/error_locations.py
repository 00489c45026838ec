"""The location of errors of graphql-core: the invalid argument, and what it allows.

graphql-core gives the name of an argument only in the message, or as a node of the document. Its
messages say what is wrong, but not what is allowed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

from graphql import (
    ArgumentNode,
    DocumentNode,
    GraphQLDirective,
    GraphQLError,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLSchema,
    ListValueNode,
    NameNode,
    Node,
    ObjectFieldNode,
    OperationDefinitionNode,
    TypeInfo,
    ValueNode,
    VariableDefinitionNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_input_type,
    type_from_ast,
)
from segmentql.graphql.execution.allowed_values import AllowedValues, is_one_of
from segmentql.graphql.execution.document_paths import Path, paths_of_variables, walk
from segmentql.graphql.types.errors import Code

MAX_NAME_CHARACTERS: Final = 255
"""The maximum length of the name of an unknown field in `extensions.argument`, in characters."""

# Variable '$input' has invalid value at .add[0]: ...
_IN_VARIABLE: Final = re.compile(r"Variable '\$(\w+)' has invalid value(?: at \.?([^:\s]+))?: ")
_MISSING_ARGUMENT: Final = re.compile(r"Argument '[@\w.<>]*\((\w+):\)' of type ")
_MISSING_FIELD: Final = re.compile(
    r"Expected value of type '\w+' to include required field '(\w+)'"
)
_UNKNOWN_FIELD: Final = re.compile(
    r"Expected value of type '\w+' not to include unknown field '(.*?)'(?:\. Did|, found)",
    re.DOTALL,
)
_NULL: Final = re.compile(
    r"(?:Argument '\w+' has invalid value[^:]*: )?"
    r"Expected (?:(?:a )?value of|variable '\$\w+' provided to) non-null type "
)
_UNDEFINED_VARIABLE: Final = re.compile(r"Variable '\$\w+' is not defined")
# Strawberry raises these errors without a location.
_ONE_OF: Final = re.compile(
    r"OneOf Input Object '\w+' must specify exactly one key|Value for member field '\w+' must be"
)


class _NodeLocation(NamedTuple):
    """A node of a document."""

    path: Path
    input_type: GraphQLInputType | None
    """The type of a value; for an input field, the input object of the field."""
    owner: GraphQLField | GraphQLDirective | None
    """The field or directive of the schema that the node is part of."""


class ErrorLocator:
    """The locations of the errors of one document, or of the variables of one operation."""

    def __init__(
        self,
        schema: GraphQLSchema,
        document: DocumentNode,
        *,
        hide_names: bool,
        operation: OperationDefinitionNode | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """Create the locator.

        Args:
            schema: The schema.
            document: The document.
            hide_names: Whether `extensions.allowed` hides names of the schema.
            operation: The executed operation; None if the document is invalid.
            variables: The variables of the operation.
        """
        self._schema = schema
        self._document = document
        self._allowed = AllowedValues(hide_names=hide_names)
        self._operation = operation
        self._variables = variables or {}

    def add_locations(self, errors: Sequence[GraphQLError]) -> list[GraphQLError]:
        """Return the errors, with `extensions.argument` and `allowed` if an argument is invalid.

        `argument` is the dotted path of the argument, such as `input.expiresAt`. Other errors are
        returned unchanged.
        """
        located = []
        errors_of_values = [
            error for error in errors if error.nodes and self._is_invalid_value(error)
        ]
        nodes = {id(node) for error in errors_of_values for node in error.nodes or ()}
        locations = self._node_locations(nodes) if nodes else {}
        for error in errors:
            found = self._locate_in_variable(error) or self._locate_in_document(error, locations)
            located.append(_with_location(error, *found) if found else error)
        return located

    def _is_invalid_value(self, error: GraphQLError) -> bool:
        """Return whether a value in the document is invalid.

        The document of an executed operation is valid, except that a variable with a default value
        can be null where null is not allowed.
        """
        return self._operation is None or isinstance((error.nodes or (None,))[0], VariableNode)

    def _locate_in_variable(self, error: GraphQLError) -> tuple[Path, str | None] | None:
        if self._operation is None:
            return None
        match = _IN_VARIABLE.match(error.message)
        if not match:
            return self._locate_one_of() if _ONE_OF.match(error.message) else None
        name, path_in_value = match.groups()
        argument = self._variable_paths.get(name)
        keys = re.findall(r"\w+", path_in_value or "")
        input_type = _type_below(self._type_of_variable(name), keys)
        if argument is None:
            return None
        return self._locate_value(error.message[match.end() :], (*argument, *keys), input_type)

    def _locate_one_of(self) -> tuple[Path, str | None] | None:
        for name, value in self._variables.items():
            input_type, argument = self._type_of_variable(name), self._variable_paths.get(name)
            if input_type is None or argument is None:
                continue
            for path, invalid_type in _invalid_one_ofs(input_type, value, argument):
                return path, self._allowed.of_type(invalid_type)
        return None

    def _type_of_variable(self, name: str) -> GraphQLInputType | None:
        for definition in (self._operation and self._operation.variable_definitions) or ():
            if definition.variable.name.value == name:
                named = type_from_ast(self._schema, definition.type)
                return named if is_input_type(named) else None
        return None

    @cached_property
    def _variable_paths(self) -> Mapping[str, Path]:
        return paths_of_variables(self._document, self._operation) if self._operation else {}

    def _node_locations(self, nodes: set[int]) -> dict[int, _NodeLocation]:
        """Return the locations of nodes of the document, by the identity of the node."""
        locations = {}
        info = TypeInfo(self._schema)
        for path, node in walk(self._document, info):
            if id(node) not in nodes:
                continue
            # Below a list or input field, the type of the list or input object is the parent's.
            is_entered = isinstance(node, ListValueNode | ObjectFieldNode)
            input_type = info.get_parent_input_type() if is_entered else info.get_input_type()
            locations[id(node)] = _NodeLocation(
                path, input_type, info.get_directive() or info.get_field_def()
            )
        return locations

    def _locate_in_document(
        self, error: GraphQLError, locations: Mapping[int, _NodeLocation]
    ) -> tuple[Path, str | None] | None:
        nodes = [node for node in error.nodes or () if id(node) in locations]
        if not nodes:
            return None
        node = nodes[0]
        path, input_type, owner = locations[id(node)]
        missing = _MISSING_ARGUMENT.match(error.message)
        if missing and owner:
            return (missing[1],), self._allowed.of_type(owner.args[missing[1]].type)
        if isinstance(node, VariableDefinitionNode) and isinstance(nodes[-1], VariableNode):
            location = locations[id(nodes[-1])]  # the variable is of another type than its position
            return location.path, f"a variable of the type {location.input_type}"
        if isinstance(node, ArgumentNode):
            return path, self._allowed.arguments(owner.args) if owner else None
        if not isinstance(node, ValueNode | ObjectFieldNode | NameNode):
            return None
        if owner is None:
            path = self._path_of_default(node)
        if isinstance(node, NameNode):
            return (path, "one value") if path else None
        if _UNDEFINED_VARIABLE.match(error.message):
            return path, "a variable that the operation defines"
        if isinstance(node, ObjectFieldNode):  # `_locate_value` adds the name of an unknown field
            path = path[:-1]
        return self._locate_value(error.message, path, input_type) if path else None

    def _path_of_default(self, node: Node) -> Path:
        """Return the path of a node in the default value of a variable; () if it is unused."""
        for operation in self._document.definitions:
            if not isinstance(operation, OperationDefinitionNode):
                continue
            for definition in operation.variable_definitions or ():
                if definition.default_value is None:
                    continue
                for path, value in walk(definition.default_value):
                    if value is node:
                        variables = paths_of_variables(self._document, operation)
                        argument = variables.get(definition.variable.name.value)
                        return (*argument, *path) if argument else ()
        return ()

    def _locate_value(
        self, message: str, path: Path, input_type: GraphQLInputType | None
    ) -> tuple[Path, str | None]:
        """Return the path of an invalid value, or of an input field in it, and what it allows."""
        named_type = get_named_type(input_type)
        missing, unknown = _MISSING_FIELD.match(message), _UNKNOWN_FIELD.match(message)
        if isinstance(named_type, GraphQLInputObjectType) and missing:
            field_type = named_type.fields[missing[1]].type
            return (*path, missing[1]), self._allowed.of_type(field_type)
        if isinstance(named_type, GraphQLInputObjectType) and unknown:
            return (*path, unknown[1][:MAX_NAME_CHARACTERS]), self._allowed.fields(named_type)
        # An item may stand for a list, so a value that is not null is invalid as an item.
        expected = input_type if _NULL.match(message) else named_type
        allowed = self._allowed.of_type(expected) if is_input_type(expected) else None
        return path, allowed


def _type_below(
    input_type: GraphQLInputType | None, keys: Sequence[str]
) -> GraphQLInputType | None:
    for key in keys:
        nullable = get_nullable_type(input_type)
        if isinstance(nullable, GraphQLList) and key.isdecimal():
            input_type = nullable.of_type
            continue
        parent = get_named_type(nullable)  # an item may stand for a list
        field = parent.fields.get(key) if isinstance(parent, GraphQLInputObjectType) else None
        if field is None:
            return None
        input_type = field.type
    return input_type


def _invalid_one_ofs(
    input_type: GraphQLInputType, value: object, path: Path
) -> Iterator[tuple[Path, GraphQLInputObjectType]]:
    """Yield the objects in the value of a variable that do not have exactly one non-null field."""
    nullable = get_nullable_type(input_type)
    if isinstance(nullable, GraphQLList) and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _invalid_one_ofs(nullable.of_type, item, (*path, str(index)))
        return
    named_type = get_named_type(nullable)  # an item may stand for a list
    if isinstance(value, Mapping) and isinstance(named_type, GraphQLInputObjectType):
        for name, field in named_type.fields.items():
            yield from _invalid_one_ofs(field.type, value.get(name), (*path, name))
        if is_one_of(named_type) and (len(value) != 1 or None in value.values()):
            yield path, named_type


def _with_location(error: GraphQLError, path: Path, allowed: str | None) -> GraphQLError:
    return GraphQLError(
        error.message,
        nodes=error.nodes,
        path=error.path,
        original_error=error.original_error,
        extensions={
            "code": Code.BAD_REQUEST,
            **({"allowed": allowed} if allowed else {}),
            **(error.extensions or {}),
            "argument": ".".join(path),
        },
    )
