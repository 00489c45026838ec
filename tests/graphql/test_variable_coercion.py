"""The compiled coercion of variables equals that of graphql-core."""

from typing import Any, Final

from graphql.execution.values import VariableValues, get_variable_values
from hypothesis import example, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from graphql import OperationDefinitionNode, parse
from segmentql.graphql.execution.variable_coercion import compile_variables
from tests.graphql.executor_helpers import CORE

TYPES: Final = ("ID", "String", "Int", "BigInt", "Float", "Boolean", "DateTime", "Role")
LISTS: Final = ("{}", "{}", "[{}]", "[{}!]", "[[{}]]")
MODIFIERS: Final = ("", "!", ' = "1"', " = 1", " = null")
LEAVES: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from(["2024-01-01T00:00:00Z", "1", "ADMIN"]),
    st.dictionaries(st.text(max_size=1), st.integers(), max_size=1),
)
VALID_LISTS: Final = st.one_of(
    st.lists(st.integers(1, 9)), st.lists(st.sampled_from("19")), st.lists(st.booleans())
)
VALUES: Final = st.one_of(
    LEAVES, VALID_LISTS, st.lists(LEAVES, max_size=3), st.lists(VALID_LISTS, max_size=2)
)


@st.composite
def definitions(draw: st.DrawFn) -> str:
    kinds = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3))
    return ", ".join(
        f"${'abc'[number]}: {draw(st.sampled_from(LISTS)).format(kind)}"
        f"{draw(st.sampled_from(MODIFIERS))}"
        for number, kind in enumerate(kinds)
    )


def sources(values: VariableValues) -> list[tuple[str, str, str]]:
    return [
        (name, str(source.signature.type), repr(source.value))
        for name, source in values.sources.items()
    ]


@profile(max_examples=500, deadline=None, derandomize=True)
@given(definitions(), st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4))
@example("$a: ID!", {"a": "7"})
@example("$a: [ID!]!", {"a": ["7"]})
@example("$a: [ID!]!", {"a": ["7", 8, 9.5]})
@example("$a: [ID!]!", {"a": ["7", None]})
@example("$a: [ID]", {"a": ["7", None]})
@example("$a: [ID!]!", {"a": "78"})
@example("$a: [ID!]! = []", {})
@example("$a: [[ID!]!]!", {"a": [["7"]]})
@example("$a: UpdateUserSegmentsInput!", {"a": {"userId": 1}})
def test_compiled_coercion_equals_that_of_core(text: str, variables: dict[str, Any]) -> None:
    operation = parse(f"query({text}) {{ __typename }}").definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    nodes = operation.variable_definitions or ()
    expected = get_variable_values(CORE, nodes, variables)
    compiled = compile_variables(CORE, nodes)(variables)
    if isinstance(expected, list):
        assert compiled is None
    else:
        assert compiled is not None
        assert repr(compiled.coerced) == repr(expected.coerced)  # NaN differs from itself
        assert sources(compiled) == sources(expected)
