"""A case of each mutation, and clients that send it with an idempotency key."""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import httpx

from segmentql.schema import make_schema
from segmentql.tables import Base
from tests.conftest import Api, Sql, without_cost
from tests.imports.lists import CREATE as CREATE_IMPORT
from tests.imports.lists import put
from tests.sample_data import INSERT_IMPORT

CORE: Final = make_schema()._schema
MUTATIONS: Final = CORE.mutation_type.fields  # type: ignore[union-attr]

REVOCABLE_KEY: Final = "abcdefabcdef"
UPLOADED_IMPORT: Final = "imp_3"
LIST: Final = b"1\n2\n"

ROWS: Final = (
    """
INSERT INTO users (id, created_at, key) VALUES (1, now(), 'one'), (9, now(), NULL);
INSERT INTO segments (slug, created_at, updated_at)
SELECT slug, now(), now() FROM unnest(ARRAY['A', 'B', 'ROLLED', 'PAUSED', 'TO_CANCEL']) AS slug;
INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
VALUES (1, 2, now(), now(), 'MANUAL');
INSERT INTO rollouts (segment_id, state, enroll_new_users, paused_at, max_percent, pass_number,
    phase, stage, percent, removes_members, last_insert_seq, bound_hash, bound_user_id,
    cursor_user_id, users_total, users_seen, heartbeat_at)
SELECT id, CASE slug WHEN 'PAUSED' THEN 'PAUSED' ELSE 'ACTIVE' END::rollout_state, false,
    CASE slug WHEN 'PAUSED' THEN now() END, 0, 1, 'DONE', 0, 0, false, 0, 0, 0, 0, 0, 0, now()
FROM segments WHERE slug NOT IN ('A', 'B');
INSERT INTO rollout_stages (segment_id, number, percent, starts_at)
SELECT segment_id, 1, 50, now() + interval '1 hour' FROM rollouts;
"""
    f"""
INSERT INTO api_keys (public_id, name, role, secret_hash, created_at)
VALUES ('{REVOCABLE_KEY}', 'old', 'READER', '\\x{"00" * 32}', now());
""" + 2 * INSERT_IMPORT.format(slug="A", status="VALIDATED")
)


class Case(NamedTuple):
    """A mutation that succeeds once on the rows of `store_rows`."""

    field: str
    input: Mapping[str, Any]
    selection: str
    """The fields of the payload that a retry returns unchanged."""

    def document(self, directive: str = "", *, before: str = "") -> str:
        """Return the document of the mutation.

        Args:
            directive: The directive of the mutation.
            before: A field before the mutation, for instance one that plans do not support.
        """
        kind = MUTATIONS[self.field].args["input"].type
        selection = f"{{ {self.selection} errors {{ __typename code message path }} }}"
        return (
            f"mutation($input: {kind}) {{ {before}"
            f" payload: {self.field}(input: $input) {directive} {selection} }}"
        )


_ROLLOUT: Final = "segment { id slug version } rollout { id status percent }"

CASES: Final = {
    case.field: case
    for case in (
        Case("createUser", {}, "user { id key createdAt }"),
        Case("updateUser", {"id": "9", "key": "nine"}, "user { id key createdAt }"),
        Case("deleteUser", {"key": "one", "eraseKey": True}, "deletedId"),
        Case(
            "createSegment",
            {"slug": "NEW", "rollout": {"percent": 50}},
            "segment { id slug version createdAt rollout { percent } }",
        ),
        Case("updateSegment", {"slug": "A", "name": "a"}, "segment { id name version updatedAt }"),
        Case("deleteSegment", {"slug": "B"}, "deletedId"),
        Case(
            "updateUserSegments",
            {"userId": "1", "add": ["A"], "remove": ["B"], "ttlSeconds": 3600},
            "user { id segments { slug } } segmentsAdded segmentsRemoved segmentsExtended",
        ),
        Case(
            "updateSegmentMembers",
            {"slug": "B", "add": ["1", "7", "7"], "removeKeys": ["unknown"]},
            "segment { id slug memberCount } counts { outcome count }",
        ),
        Case("setRollout", {"slug": "A", "rollout": {"percent": 0.5}}, _ROLLOUT),
        Case("pauseRollout", {"slug": "ROLLED"}, _ROLLOUT),
        Case("resumeRollout", {"slug": "PAUSED"}, _ROLLOUT),
        Case("cancelRollout", {"slug": "TO_CANCEL", "withdraw": True}, _ROLLOUT),
        Case(
            "createReport",
            {"userId": "1", "year": 2024, "month": 3, "waitSeconds": 0},
            "report { id status createdAt }",
        ),
        Case(
            "createImport",
            {"slug": "A", "source": {"upload": {"sizeBytes": 3}}, "dryRun": True},
            "import { id status createdAt } upload { method }",
        ),
        Case("startImport", {"id": UPLOADED_IMPORT}, "import { id status }"),
        Case("applyImport", {"id": "imp_1"}, "import { id status }"),
        Case("cancelImport", {"id": "imp_2"}, "import { id status finishedAt }"),
        Case("createExport", {"slug": "A", "waitSeconds": 0}, "export { id asOf cursor }"),
        Case("createApiKey", {"name": "new", "role": "READER"}, "apiKey { id name createdAt }"),
        Case("revokeApiKey", {"id": f"key_{REVOCABLE_KEY}"}, "apiKey { id revokedAt }"),
    )
}


async def store_rows(sql: Sql, api: Api) -> None:
    """Store the rows that the cases read and change, and upload the list of an import."""
    await sql.execute(ROWS)
    source = {"upload": {"sizeBytes": len(LIST)}}
    created = (await api(CREATE_IMPORT, input={"slug": "A", "source": source}))["createImport"]
    assert created["import"]["id"] == UPLOADED_IMPORT
    assert (await put(created["upload"], LIST)).status_code == 200


async def send(
    api: Api,
    document: str,
    variables: Mapping[str, Any],
    **headers: str,
) -> Any:
    """Send a document; return the whole body of the response, without the cost."""
    response = await api.http.post(
        "/graphql",
        content=json.dumps({"query": document, "variables": variables}),
        headers={"content-type": "application/json", **headers},
    )
    return without_cost(response.json())


async def send_with_key(api: Api, case: Case, key: str) -> Any:
    """Send a mutation with a key in the header; return its payload."""
    body = await send(api, case.document(), {"input": case.input}, **{"idempotency-key": key})
    assert "errors" not in body, body
    return body["data"]["payload"]


async def every_row(sql: Sql, *, except_tables: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Return every row of every table except `except_tables`, for a comparison before and after."""
    return {
        table: [
            str(row[0]) for row in await sql.fetch(f"SELECT to_json(t) FROM {table} t ORDER BY t")
        ]
        for table in sorted(set(Base.metadata.tables) - {*except_tables, "leases"})
    }


def is_unavailable(response: httpx.Response) -> bool:
    """Return whether a mutation was not executed because its key is in use."""
    errors = response.json().get("errors")
    if not errors:
        return False
    assert [error["extensions"]["code"] for error in errors] == ["UNAVAILABLE"], errors
    assert response.headers["retry-after"] == "1"
    return True
