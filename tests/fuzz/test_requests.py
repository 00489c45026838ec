"""Requests made from the schema, and those that once did harm: none does any now.

`make fuzz` sends many more, to a server of its own (`tests/e2e/test_fuzz.py`).
"""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from schemathesis.generation import GenerationMode

from graphql import build_schema
from tests.fuzz.request_strategies import OPERATIONS, SCHEMA, requests
from tests.fuzz.requests import CORPUS, Sent, asking, keep, read
from tests.fuzz.response_checks import Judge

FILES = sorted(CORPUS.glob("*.http"))
ALL_CHECKS = list(HealthCheck)


@profile(max_examples=250, suppress_health_check=ALL_CHECKS)
@given(sent=requests(GenerationMode.POSITIVE))
async def test_what_keeps_the_schema_does_no_harm(judge: Judge, sent: Sent) -> None:
    await judge.send(sent)


@profile(max_examples=100, suppress_health_check=ALL_CHECKS)
@given(sent=requests(GenerationMode.NEGATIVE))
async def test_what_breaks_the_schema_does_no_harm(judge: Judge, sent: Sent) -> None:
    await judge.send(sent)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_what_once_did_harm_does_no_more(judge: Judge, file: Path) -> None:
    await judge.send(read(file))


def test_every_field_of_the_roots_is_asked_for() -> None:
    schema = build_schema(SCHEMA.read_text())
    roots = [root for root in (schema.query_type, schema.mutation_type) if root]
    asked = {operation.label for operation in OPERATIONS}
    assert asked == {f"{root.name}.{field}" for root in roots for field in root.fields}


def test_a_request_is_read_from_its_file_as_it_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.fuzz.requests.CORPUS", tmp_path)
    for sent in (
        asking("{ __typename }"),
        Sent(b"\n\n\0\xff", "PUT", "/graphql?query=%00", {"accept": "\xff", "x": ""}),
    ):
        assert read(keep(sent)) == sent
