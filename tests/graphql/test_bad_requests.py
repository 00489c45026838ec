"""Each BAD_REQUEST of graphql-core names the invalid argument and what it allows."""

from typing import Any, Final

import pytest

from segmentql.graphql.context import Context
from segmentql.graphql.cost.deadlines import Deadlines
from segmentql.graphql.execution.allowed_values import ALLOWED
from segmentql.graphql.execution.document_cache import SchemaExposure
from segmentql.graphql.execution.executor import GraphQLExecutor
from segmentql.graphql.execution.request import Request
from segmentql.graphql.execution.subscriptions import SubscriptionRejected
from tests.back_dating import all_rows
from tests.conftest import Api, Sql
from tests.graphql.bad_requests import IDS, SOURCE, cases
from tests.graphql.executor_helpers import (
    COMPILING_EXECUTOR,
    LIMITS,
    PLAIN_EXECUTOR,
    SCHEMA,
    execute,
)

HIDING_EXECUTOR: Final = GraphQLExecutor(SCHEMA, LIMITS, SchemaExposure(suggestions=False))

NULL_VARIABLES: Final = [  # the default value makes the type of the variable valid
    ('query($s: String = "a") { segment(slug: $s) { id } }', "slug", ALLOWED["String"]),
    ("query($i: ID = 1) { usersById(ids: [1, $i]) { id } }", "ids.1", ALLOWED["ID"]),
    ("query($i: [ID!] = [1]) { usersById(ids: $i) { id } }", "ids", IDS),
    (
        'mutation($s: String = "a") { createSegment(input: {slug: $s}) { segment { id } } }',
        "input.slug",
        ALLOWED["String"],
    ),
]


async def test_each_bad_request_names_the_argument_and_what_it_allows(context: Context) -> None:
    for executor in (COMPILING_EXECUTOR, PLAIN_EXECUTOR):
        for document, variables, argument, allowed in cases():
            response = await execute(executor, context, document, **variables)
            assert not response.executed
            assert [error["extensions"] for error in response.body["errors"]] == [
                {"code": "BAD_REQUEST", "argument": argument, "allowed": allowed}
            ], (document, variables)


async def test_all_errors_of_a_variable_are_located(context: Context) -> None:
    document = "mutation($i: CreateImportInput!) { createImport(input: $i) { __typename } }"
    value = {"source": 3, "nope": 2, "mode": "X", "maxRejected": "1"}
    for executor in (COMPILING_EXECUTOR, PLAIN_EXECUTOR):
        response = await execute(executor, context, document, i=value)
        located = {
            error["extensions"]["argument"]: error["extensions"]["allowed"]
            for error in response.body["errors"]
        }
        assert located.pop("input.nope").startswith("the fields `slug`, `source`, ")
        assert located == {
            "input.slug": ALLOWED["String"],
            "input.source": SOURCE,
            "input.mode": "one of ADD, REMOVE, REPLACE",
            "input.maxRejected": ALLOWED["BigInt"],
        }


async def test_null_variable_with_a_default_value_is_a_bad_request(
    context: Context, api: Api, sql: Sql
) -> None:
    before = await all_rows(sql)
    for document, argument, allowed in NULL_VARIABLES:
        name = document[document.index("$") + 1]
        for executor in (COMPILING_EXECUTOR, PLAIN_EXECUTOR):
            response = await execute(executor, context, document, **{name: None})
            (error,) = response.body["errors"]
            assert error["extensions"] == {
                "code": "BAD_REQUEST",
                "argument": argument,
                "allowed": allowed,
            }, document
    assert await all_rows(sql) == before


@pytest.mark.parametrize(
    ("document", "variables", "argument", "allowed"),
    [
        (
            "subscription($b: Int) { changes(batch: $b) { cursor } }",
            {"b": "x"},
            "batch",
            ALLOWED["Int"],
        ),
        (
            'subscription($s: String = "a") { changes(filter: {slugs: [$s]}) { cursor } }',
            {"s": None},
            "filter.slugs.0",
            ALLOWED["String"],
        ),
    ],
)
async def test_bad_request_of_a_subscription_names_the_argument(
    context: Context, document: str, variables: dict[str, Any], argument: str, allowed: str
) -> None:
    for executor in (COMPILING_EXECUTOR, PLAIN_EXECUTOR):
        with pytest.raises(SubscriptionRejected) as rejected:
            await executor.subscriptions.open(
                Request(document, variables), context, deadlines=Deadlines(60)
            )
        assert [error["extensions"] for error in rejected.value.errors] == [
            {"code": "BAD_REQUEST", "argument": argument, "allowed": allowed}
        ]


@pytest.mark.parametrize(
    ("document", "variables", "allowed"),
    [
        ("{ user(id: 1, slug: 2) { id } }", {}, "an argument of the schema"),
        ("{ changes(start: SOON) { cursor } }", {}, "a value of the enum FeedStart"),
        (
            "query($f: FeedFilter) { changes(filter: $f) { cursor } }",
            {"f": {"nope": 1}},
            "the fields of FeedFilter",
        ),
        (
            "mutation { createImport(input: {slug: 1, source: {}}) { __typename } }",
            {},
            "an object with exactly one of the fields of ImportSource",
        ),
    ],
)
async def test_allowed_has_no_names_if_suggestions_are_disabled(
    context: Context, document: str, variables: dict[str, Any], allowed: str
) -> None:
    response = await execute(HIDING_EXECUTOR, context, document, **variables)
    assert allowed in [error["extensions"]["allowed"] for error in response.body["errors"]]


UPLOADS: Final = "mutation($u: UploadInput!) { ...f }"
INPUT: Final = '{slug: "a", source: {upload: $u}}'
FRAGMENT: Final = f"fragment f on Mutation {{ createImport(input: {INPUT}) {{ __typename }} }}"


@pytest.mark.parametrize("padding", ["", "#" * 1000], ids=["short", "prepared in the thread"])
@pytest.mark.parametrize(
    ("document", "variables", "arguments"),
    [
        (
            'mutation { createImport(input: {slug: "a", source: {upload: {}}, source: {upload:'
            ' {sizeBytes: "x"}}}) { __typename } }',
            {},
            {"input.source", "input.source.upload.sizeBytes"},
        ),
        (
            'mutation { createImport(input: {slug: "a", source: {upload: $u}}) { __typename } }',
            {},
            {"input.source.upload"},
        ),
        (
            f"{FRAGMENT} mutation($u: UploadInput) {{ ...f }}",
            {},
            {"input.source"},
        ),
        (
            "query B($v: String!) { segment(slug: $v) { id } } query A($v: ID!) { ...f }"
            " fragment f on Query { user(id: $v) { id } }",
            {"v": 1.5},
            {"id"},
        ),
        (
            "query B($v: String!) { segment(slug: $v) { id } }"
            " query A($v: ID! = 1.5) { user(id: $v) { id } }",
            {},
            {"id"},
        ),
        (
            'query A($f: FeedFilter = {slugs: "b", slugs: "c"}) { changes(filter: $f) { cursor } }',
            {},
            {"filter.slugs"},
        ),
    ],
)
async def test_unusual_documents_are_bad_requests(
    context: Context, document: str, variables: dict[str, Any], arguments: set[str], padding: str
) -> None:
    name = "A" if "A(" in document else None
    for executor in (COMPILING_EXECUTOR, PLAIN_EXECUTOR):
        request = Request(document + padding, variables, name)
        response = await executor.execute(request, context, queries_only=False)
        extensions = [error["extensions"] for error in response.body["errors"]]
        assert {each["code"] for each in extensions} == {"BAD_REQUEST"}
        assert {each["argument"] for each in extensions} == arguments


@pytest.mark.parametrize("document", [f"{UPLOADS} {FRAGMENT}", f"{FRAGMENT} {UPLOADS}"])
async def test_fragment_may_stand_before_or_after_its_operation(
    context: Context, document: str
) -> None:
    prepared = await COMPILING_EXECUTOR._cache.prepare(document)
    assert prepared.errors == ()
