"""Interfaces whose values have the class of their type are compiled, and match graphql-core."""

from typing import Any

import orjson
import pytest
import strawberry
from strawberry.schema.config import StrawberryConfig

from graphql import parse
from segmentql.graphql.context import Context
from segmentql.graphql.execution.compiler import compile_operation
from segmentql.graphql.execution.executor import GraphQLExecutor
from segmentql.graphql.execution.plans import PlanFallback
from segmentql.graphql.types.scalars import SCALARS
from tests.graphql.executor_helpers import (
    COMPILING_EXECUTOR,
    CORE,
    LIMITS,
    PLAIN_EXECUTOR,
    comparable_response,
    execute,
)


@strawberry.interface
class Animal:
    name: str


@strawberry.type
class Cat(Animal):
    lives: int


@strawberry.type
class Dog(Animal):
    age: int = 3
    friend: Animal | None = None


class Puppy(Dog):
    """A value whose class is not the class of a type."""


ANIMALS: list[Animal] = [
    Cat(name="Tom", lives=9),
    Dog(name="Rex", friend=Cat(name="Kit", lives=7)),
    Dog(name="Max"),
]


@strawberry.type
class Zoo:
    @strawberry.field
    def animals(self) -> list[Animal]:
        return ANIMALS

    @strawberry.field
    def puppy(self) -> Animal:
        return Puppy(name="Bo")


ZOO = strawberry.Schema(query=Zoo, types=[Cat, Dog], config=StrawberryConfig(scalar_map=SCALARS))
QUERIES = [
    "{ animals { __typename name } }",
    "{ animals { ... on Cat { lives name } name ... on Dog { friend { name __typename } } } }",
    "{ animals { ... on Animal { name ... on Dog { friend { ... on Cat { lives } } } } } }",
    "{ animals { ...c ...d } } fragment c on Cat { a: lives } fragment d on Dog { a: age }",
    "{ animals { ... on Cat @skip(if: true) { lives } ... on Dog @include(if: true) { name } } }",
    "{ animals { ... { name } ... on Cat { ... on Animal { b: name } }"
    " ... on Dog { ... on Animal { c: name } } } }",
]


def plan_of(schema: Any, query: str) -> Any:
    document = parse(query)
    return compile_operation(schema, document, document.definitions[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("query", QUERIES)
async def test_compiled_interface_matches_graphql_core(context: Context, query: str) -> None:
    plan = plan_of(ZOO._schema, query)
    assert plan
    plain = await execute(GraphQLExecutor(ZOO, LIMITS, plans=False), context, query)
    context.remaining_bytes = LIMITS.response_bytes
    planned = await plan.run(context, {})
    assert "errors" not in plain.body
    assert orjson.dumps(planned) == orjson.dumps(plain.body["data"])
    # The counted size is a lower bound of the size of the response.
    counted = LIMITS.response_bytes - context.remaining_bytes
    assert 0 < counted <= len(orjson.dumps(planned))


async def test_value_of_another_class_is_resolved_by_graphql_core(context: Context) -> None:
    plan = plan_of(ZOO._schema, "{ puppy { name __typename } }")
    assert plan
    with pytest.raises(PlanFallback):
        await plan.run(context, {})


FEED = [
    "{ changes(start: EARLIEST) { events { cursor at __typename } cursor caughtUp } }",
    "{ changes(start: EARLIEST, first: 3) { events { ... on MembershipEvent { entry {"
    " id operation user { key segments { slug } } segment { slug name } } cursor } at } } }",
    "{ changes(start: EARLIEST) { events { ...e } } }"
    " fragment e on FeedEvent { at ...m } fragment m on MembershipEvent { entry { userId } }",
]


@pytest.mark.parametrize("query", FEED)
async def test_events_of_the_feed_are_compiled(context: Context, query: str) -> None:
    plan = plan_of(CORE, query)
    assert plan
    data = await plan.run(context, {})
    assert data["changes"]["events"]
    plain = await execute(PLAIN_EXECUTOR, context, query)
    assert orjson.dumps(data) == orjson.dumps(plain.body["data"])
    compiled = await execute(COMPILING_EXECUTOR, context, query)
    assert comparable_response(compiled) == comparable_response(plain)
