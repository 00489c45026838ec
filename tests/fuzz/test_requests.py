"""Generated requests, and those that once did harm, have no forbidden effect.

`make fuzz` sends many more to a separate server (`tests/e2e/test_fuzz.py`).
"""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from schemathesis.generation import GenerationMode

from graphql import build_schema
from tests.fuzz.request_strategies import OPERATIONS, SCHEMA, requests
from tests.fuzz.requests import CORPUS, HttpRequest, graphql_request, read, save
from tests.fuzz.response_checks import EffectMonitor

FILES = sorted(CORPUS.glob("*.http"))
ALL_CHECKS = list(HealthCheck)


@profile(max_examples=250, suppress_health_check=ALL_CHECKS)
@given(sent=requests(GenerationMode.POSITIVE))
async def test_valid_requests_do_no_harm(monitor: EffectMonitor, sent: HttpRequest) -> None:
    await monitor.send(sent)


@profile(max_examples=100, suppress_health_check=ALL_CHECKS)
@given(sent=requests(GenerationMode.NEGATIVE))
async def test_invalid_requests_do_no_harm(monitor: EffectMonitor, sent: HttpRequest) -> None:
    await monitor.send(sent)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_requests_of_the_corpus_do_no_harm(monitor: EffectMonitor, file: Path) -> None:
    await monitor.send(read(file))


def test_every_root_field_is_generated() -> None:
    schema = build_schema(SCHEMA.read_text())
    roots = [root for root in (schema.query_type, schema.mutation_type) if root]
    labels = {operation.label for operation in OPERATIONS}
    assert labels == {f"{root.name}.{field}" for root in roots for field in root.fields}


def test_request_is_read_from_its_file_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.fuzz.requests.CORPUS", tmp_path)
    for sent in (
        graphql_request("{ __typename }"),
        HttpRequest(b"\n\n\0\xff", "PUT", "/graphql?query=%00", {"accept": "\xff", "x": ""}),
    ):
        assert read(save(sent)) == sent
