"""Compiled queries: the common case of execution, without graphql-core's general one.

A plan is made once a document: every field becomes a closure that knows whether it is a plain
attribute or a resolver, how its value is written, and what is below it. Running it costs a tenth of
walking the document again.

It is right by doing little. A plan knows no errors: whatever goes wrong (a resolver raises, a null
stands where none may, a value cannot be written) raises `PlanFailed`, and the caller executes the
query anew with graphql-core, which tells every error as the specification wants it. That is safe
because queries change nothing. What it does not know (introspection, interfaces, mutations, fields
asked for twice under different conditions) has no plan. `tests/graphql/test_plans.py` holds the two
equal on random documents.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import strawberry
from graphql.execution.values import VariableValues, get_variable_values
from strawberry.types.field import StrawberryField
from strawberry.utils.str_converters import to_camel_case

from graphql import (
    BooleanValueNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLEnumType,
    GraphQLField,
    GraphQLID,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionNode,
    SelectionSetNode,
    Undefined,
    VariableNode,
    Visitor,
    get_argument_values,
    is_input_object_type,
    visit,
)
from graphql import get_named_type as named_type
from segmentql.graphql.context import Context, Info
from segmentql.graphql.turns import TURN_SECONDS, let_others

MAX_FIELDS: Final = 1000
"""Of one plan: fragments in fragments can make a small document a huge query, and a plan is made of
all of it before anything is known to be there."""

TURN_WRITES: Final = 50
"""Answers written in one turn in any case: what they ask for in turn shares a statement."""


class PlanFailed(Exception):
    """The query must be executed by graphql-core, because something in it went wrong."""


class _Unplanned(Exception):
    """The document has something that plans do not know."""


@dataclass(slots=True)
class _Run:
    """One execution of a plan: what resolvers get, and what is still awaited."""

    context: Context
    variables: VariableValues
    waiting: list["_Waiting"]
    infos: dict[frozenset[str], Info]

    def info(self, below: frozenset[str]) -> Info:
        """What the resolver of a field gets below which these are asked for."""
        info = self.infos.get(below)
        if info is None:
            info = self.infos[below] = strawberry.Info(
                _raw_info=_RawInfo(self.context, below),  # type: ignore[arg-type]
                _field=None,  # type: ignore[arg-type]
            )
        return info


class _Waiting(NamedTuple):
    """An answer to come, and where it goes."""

    answer: asyncio.Future[Any]
    into: dict[str, Any]
    key: str
    write: "_Write"


class _RawInfo(NamedTuple):
    """What of graphql-core's resolve info our resolvers use; asking for more fails the plan."""

    context: Context
    below: frozenset[str]
    """The fields asked for, without arguments, of what the resolver answers with."""


_Write: TypeAlias = Callable[[Any, _Run], Any]
"""Makes what the response holds out of what a resolver or attribute gave."""

_Conditions: TypeAlias = frozenset[tuple[bool, str | bool]]
"""What `@include` and `@skip` ask of a field: what must be true or false, a variable or a value."""

_Asked: TypeAlias = dict[str, tuple[list[FieldNode], _Conditions]]
"""The fields of an object by their names in the response."""

_Fill: TypeAlias = Callable[[Any, dict[str, Any], _Run], None]
"""Puts one field of an object into the response's dict."""


class Plan:
    """One query operation of one document, ready to run many times."""

    def __init__(
        self, schema: GraphQLSchema, operation: OperationDefinitionNode, fields: Sequence[_Fill]
    ) -> None:
        self._schema = schema
        self._definitions = operation.variable_definitions or ()
        self._fields = fields

    async def run(self, context: Context, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Execute; the response's `data`.

        Raises:
            PlanFailed: something went wrong; execute the query by graphql-core.
        """
        coerced = get_variable_values(self._schema, self._definitions, dict(variables))
        if isinstance(coerced, list):
            raise PlanFailed
        run = _Run(context, coerced, [], {})
        clock = time.perf_counter
        data: dict[str, Any] = {}
        try:
            for fill in self._fields:
                fill(None, data, run)
            while run.waiting:
                # A whole wave is awaited before any of it is written, so that what its writing
                # begins in turn is asked for in one turn of the loop, and so in one batch.
                wave = run.waiting
                answers = [await waiting.answer for waiting in wave]
                run.waiting = []
                turn_ends = clock() + TURN_SECONDS
                for number, ((_, into, key, write), answer) in enumerate(
                    zip(wave, answers, strict=True), start=1
                ):
                    into[key] = write(answer, run)
                    if number % TURN_WRITES == 0 and clock() > turn_ends:
                        await let_others()
                        turn_ends = clock() + TURN_SECONDS
        except Exception as error:
            _let_go(run.waiting)
            raise PlanFailed from error
        except BaseException:
            _let_go(run.waiting)
            raise
        return data


def make_plan(
    schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode
) -> Plan | None:
    """Compile a validated operation; None where graphql-core must execute it."""
    if operation.operation is not OperationType.QUERY or schema.query_type is None:
        return None
    try:
        compiler = _Compiler(schema, document)
        if operation.directives:
            raise _Unplanned
        return Plan(
            schema, operation, compiler.fields(schema.query_type, [operation.selection_set])
        )
    except _Unplanned:
        return None


def _let_go(waiting: Sequence[_Waiting]) -> None:
    """Take back what nobody will read."""
    for answer, *_ in waiting:
        if answer.done() and not answer.cancelled():
            answer.exception()  # seen, so that it is not reported as lost
        else:
            answer.cancel()


class _Compiler:
    def __init__(self, schema: GraphQLSchema, document: DocumentNode) -> None:
        self._schema = schema
        self._fields_left = MAX_FIELDS
        self._fragments = {
            node.name.value: node
            for node in document.definitions
            if isinstance(node, FragmentDefinitionNode)
        }

    def fields(
        self, parent: GraphQLObjectType, sets: Sequence[SelectionSetNode]
    ) -> Sequence[_Fill]:
        """What fills the dict of an object of type `parent`, in the response's order."""
        grouped = self._grouped(parent, sets)
        self._fields_left -= len(grouped)
        if self._fields_left < 0:
            raise _Unplanned
        return [
            _if(conditions, self._field(parent, key, nodes))
            for key, (nodes, conditions) in grouped.items()
        ]

    def _grouped(self, parent: GraphQLObjectType, sets: Sequence[SelectionSetNode]) -> _Asked:
        grouped: _Asked = {}
        spread: dict[str, _Conditions] = {}
        for selection_set in sets:
            self._collect(parent, selection_set, grouped, spread, frozenset())
        return grouped

    def _collect(
        self,
        parent: GraphQLObjectType,
        selection_set: SelectionSetNode,
        grouped: _Asked,
        spread: dict[str, _Conditions],
        around: _Conditions,
    ) -> None:
        for node in selection_set.selections:
            conditions = around | _conditions(node) if node.directives else around
            if isinstance(node, FieldNode):
                key = (node.alias or node.name).value
                nodes, before = grouped.setdefault(key, ([], conditions))
                if before != conditions:
                    raise _Unplanned
                nodes.append(node)
                continue
            if isinstance(node, FragmentSpreadNode):
                name = node.name.value
                if name in spread:
                    if spread[name] != conditions:
                        raise _Unplanned
                    continue  # its fields are here already
                spread[name] = conditions
                fragment: FragmentDefinitionNode | InlineFragmentNode = self._fragments[name]
                if fragment.directives:
                    raise _Unplanned
            elif isinstance(node, InlineFragmentNode):
                fragment = node
            else:
                raise _Unplanned
            condition = fragment.type_condition
            if condition and condition.name.value != parent.name:
                raise _Unplanned
            self._collect(parent, fragment.selection_set, grouped, spread, conditions)

    def _field(self, parent: GraphQLObjectType, key: str, nodes: Sequence[FieldNode]) -> _Fill:
        node = nodes[0]
        name = node.name.value
        if name == "__typename":
            return _constant(key, parent.name)
        field = parent.fields.get(name)
        definition = field.extensions.get("strawberry-definition") if field else None
        if field is None or not isinstance(definition, StrawberryField):
            raise _Unplanned
        sets = [node.selection_set for node in nodes if node.selection_set]
        write = self._write(field.type, sets)
        if definition.base_resolver is None:
            return _attribute(key, definition.python_name, write)
        arguments = _arguments(field, definition, node)
        return _resolver(key, definition, arguments, write, self._below(field.type, sets))

    def _below(self, kind: GraphQLOutputType, sets: Sequence[SelectionSetNode]) -> frozenset[str]:
        parent = named_type(kind)
        if not isinstance(parent, GraphQLObjectType):
            return frozenset()
        asked = self._grouped(parent, sets).values()
        return frozenset(nodes[0].name.value for nodes, _ in asked if not nodes[0].arguments)

    def _write(self, kind: GraphQLOutputType, sets: Sequence[SelectionSetNode]) -> _Write:
        if isinstance(kind, GraphQLNonNull):
            return self._write_value(kind.of_type, sets)
        write = self._write_value(kind, sets)
        return lambda value, run: None if value is None else write(value, run)

    def _write_value(self, kind: GraphQLOutputType, sets: Sequence[SelectionSetNode]) -> _Write:
        """How a value that must not be null is written; each of these refuses None."""
        if isinstance(kind, GraphQLList):
            return _list(self._write(kind.of_type, sets))
        if isinstance(kind, GraphQLObjectType) and kind.is_type_of is None:
            return _object(self.fields(kind, sets))
        if kind in {GraphQLString, GraphQLID}:
            return _text(kind)
        if isinstance(kind, GraphQLScalarType | GraphQLEnumType):
            return _leaf(kind)
        raise _Unplanned


def _conditions(node: SelectionNode) -> _Conditions:
    found: set[tuple[bool, str | bool]] = set()
    for directive in node.directives or ():
        wanted = {"include": True, "skip": False}.get(directive.name.value)
        arguments = directive.arguments or ()
        if wanted is None or len(arguments) != 1:
            raise _Unplanned
        given = arguments[0].value
        if isinstance(given, BooleanValueNode):
            found.add((wanted, given.value))
        elif isinstance(given, VariableNode):
            found.add((wanted, given.name.value))
        else:
            raise _Unplanned
    return frozenset(found)


def _if(conditions: _Conditions, fill: _Fill) -> _Fill:
    """Fill where all of the conditions are met."""
    if not conditions:
        return fill

    def fill_if(source: Any, into: dict[str, Any], run: _Run) -> None:
        for wanted, given in conditions:
            value = given if isinstance(given, bool) else run.variables.coerced[given]
            if value is None:
                raise PlanFailed
            if value is not wanted:
                return
        fill(source, into, run)

    return fill_if


def _constant(key: str, value: object) -> _Fill:
    def fill(source: Any, into: dict[str, Any], run: _Run) -> None:
        into[key] = value

    return fill


def _attribute(key: str, name: str, write: _Write) -> _Fill:
    def fill(source: Any, into: dict[str, Any], run: _Run) -> None:
        into[key] = write(getattr(source, name), run)

    return fill


def _resolver(
    key: str,
    definition: StrawberryField,
    arguments: "_Arguments",
    write: _Write,
    below: frozenset[str],
) -> _Fill:
    resolver = definition.base_resolver
    if resolver is None or definition.extensions or definition.permission_classes:
        raise _Unplanned
    function: Callable[..., Any] = resolver.wrapped_func  # type: ignore[assignment]
    wants_info = resolver.info_parameter is not None

    def fill(source: Any, into: dict[str, Any], run: _Run) -> None:
        given = arguments(run)
        value = (
            function(source, info=run.info(below), **given)
            if wants_info
            else function(source, **given)
        )
        if isinstance(value, Awaitable):
            into[key] = None  # keeps the field's place
            run.waiting.append(_Waiting(asyncio.ensure_future(value), into, key, write))
        else:
            into[key] = write(value, run)

    return fill


_Arguments: TypeAlias = Callable[[_Run], Mapping[str, Any]]


def _arguments(field: GraphQLField, definition: StrawberryField, node: FieldNode) -> _Arguments:
    """A field's arguments by their Python names: read once where no variable is among them."""
    if any(is_input_object_type(named_type(argument.type)) for argument in field.args.values()):
        raise _Unplanned
    if any(
        isinstance(named_type(argument.type), GraphQLEnumType) for argument in field.args.values()
    ):
        raise _Unplanned
    names = {
        argument.graphql_name or to_camel_case(argument.python_name): argument.python_name
        for argument in definition.arguments
    }
    if not names.keys() >= field.args.keys():
        raise _Unplanned

    def read(variables: VariableValues | None) -> Mapping[str, Any]:
        given = get_argument_values(field, node, variables)
        return {names[name]: value for name, value in given.items()}

    if _has_variable(node):
        return lambda run: read(run.variables)
    constant = read(None)
    return lambda run: constant


def _has_variable(node: FieldNode) -> bool:
    found = False

    class Find(Visitor):
        def enter_variable(self, node: VariableNode, *_: Any) -> None:
            nonlocal found
            found = True

    for argument in node.arguments or ():
        visit(argument, Find())
    return found


def _list(write: _Write) -> _Write:
    def write_list(value: Any, run: _Run) -> list[Any]:
        if type(value) is not list:
            raise PlanFailed
        return [write(item, run) for item in value]

    return write_list


def _object(fields: Sequence[_Fill]) -> _Write:
    def write_object(value: Any, run: _Run) -> dict[str, Any]:
        if value is None:
            raise PlanFailed
        into: dict[str, Any] = {}
        for fill in fields:
            fill(value, into, run)
        return into

    return write_object


def _text(kind: GraphQLScalarType) -> _Write:
    return lambda value, run: value if type(value) is str else _written(kind, value)


def _leaf(kind: GraphQLScalarType | GraphQLEnumType) -> _Write:
    return lambda value, run: _written(kind, value)


def _written(kind: GraphQLScalarType | GraphQLEnumType, value: Any) -> Any:
    written = kind.coerce_output_value(value)
    if written is None or written is Undefined:
        raise PlanFailed
    return written
