"""GraphQL operations of rollouts, as clients send them."""

from collections.abc import Mapping
from typing import Any

from tests.back_dating import all_rows
from tests.conftest import Api, Sql
from tests.operations import CREATE_SEGMENT, ERRORS, SEGMENT

ROLLOUT = """
id status percent enrollNewUsers expiresAt
stages { percent startsAt status }
usersTotal usersSeen progress enrolled excluded startedAt finishedAt failure
"""


def _mutation(name: str) -> str:
    of_input = f"{name[0].upper()}{name[1:]}Input"
    return f"""
    mutation Change($input: {of_input}!) {{
      {name}(input: $input) {{
        segment {{ {SEGMENT} }}
        rollout {{ {ROLLOUT} }}
        {ERRORS}
        errors {{ ... on RolloutStateConflict {{ status }} }}
      }}
    }}
    """


SET_ROLLOUT, PAUSE_ROLLOUT, RESUME_ROLLOUT, CANCEL_ROLLOUT = map(
    _mutation, ("setRollout", "pauseRollout", "resumeRollout", "cancelRollout")
)

OPERATIONS = {
    "setRollout": SET_ROLLOUT,
    "pauseRollout": PAUSE_ROLLOUT,
    "resumeRollout": RESUME_ROLLOUT,
    "cancelRollout": CANCEL_ROLLOUT,
    "createSegment": CREATE_SEGMENT,
}
"""Every mutation that accepts or changes a rollout."""


async def set_rollout(api: Api, rollout: Mapping[str, Any], slug: str = "A", **fields: Any) -> Any:
    variables = {"slug": slug, "rollout": rollout, **fields}
    return (await api(SET_ROLLOUT, input=variables))["setRollout"]


async def pause_rollout(api: Api, slug: str = "A") -> Any:
    return (await api(PAUSE_ROLLOUT, input={"slug": slug}))["pauseRollout"]


async def resume_rollout(api: Api, slug: str = "A") -> Any:
    return (await api(RESUME_ROLLOUT, input={"slug": slug}))["resumeRollout"]


async def cancel_rollout(api: Api, slug: str = "A", **fields: Any) -> Any:
    return (await api(CANCEL_ROLLOUT, input={"slug": slug, **fields}))["cancelRollout"]


async def read_segment(api: Api, slug: str = "A") -> Any:
    """Return the segment with this slug, its member count and its rollout."""
    query = f"""query Read($slug: String!) {{
      segment(slug: $slug) {{ {SEGMENT} memberCount rollout {{ {ROLLOUT} }} }} }}"""
    return (await api(query, slug=slug))["segment"]


async def read_rollout(api: Api, slug: str = "A") -> Any:
    return (await read_segment(api, slug))["rollout"]


def accepted_rollout(payload: Mapping[str, Any]) -> Any:
    """Return the rollout of a payload, which must have no errors."""
    assert payload["errors"] == []
    return payload["rollout"]


def summarize(rollout: Mapping[str, Any]) -> tuple[str, float, list[str]]:
    """Return a rollout's status, the percent in force, and the status of each stage."""
    return rollout["status"], rollout["percent"], [of["status"] for of in rollout["stages"]]


async def rejection_errors(
    api: Api, sql: Sql, mutation: str, **fields: Any
) -> list[dict[str, Any]]:
    """Return the errors of a mutation that must change nothing and return no data."""
    before = await all_rows(sql)
    payload = (await api(OPERATIONS[mutation], input=fields))[mutation]
    assert await all_rows(sql) == before
    assert {field: value for field, value in payload.items() if field != "errors"} == dict.fromkeys(
        ["segment"] if mutation == "createSegment" else ["segment", "rollout"]
    )
    return list(payload["errors"])
