"""The manifests of GraphQL Code Generator, Apollo and Relay."""

import hashlib
from pathlib import Path
from typing import Any

import orjson
import pytest

from segmentql.documents.manifests import parse_manifest, read_manifest
from segmentql.errors import BadValue
from tests.documents.requests import CREATE, USERS


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def apollo(*operations: Any, **fields: Any) -> dict[str, Any]:
    return {
        "format": "apollo-persisted-query-manifest",
        "version": 1,
        "operations": list(operations),
        **fields,
    }


def operation(body: str, **fields: Any) -> dict[str, Any]:
    return {"id": sha256(body), "name": "Users", "type": "query", "body": body, **fields}


@pytest.mark.parametrize(
    "manifest",
    [
        {sha256(USERS): USERS, sha256(CREATE): CREATE},
        {f"sha256:{sha256(USERS)}": USERS, f"sha256:{sha256(CREATE)}": CREATE},
        apollo(operation(USERS), operation(CREATE)),
    ],
    ids=["hashes", "prefixed hashes", "Apollo"],
)
def test_documents_of_each_format(manifest: Any) -> None:
    assert parse_manifest(orjson.dumps(manifest)) == [USERS, CREATE]


def test_hash_is_of_the_text_in_utf_8() -> None:
    text = '{ userByKey(key: "Zoë 😀") { id } }'
    assert parse_manifest(orjson.dumps({sha256(text): text})) == [text]


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        ([], "the file has no JSON object"),
        ({}, "the manifest has no documents"),
        (apollo(), "the manifest has no documents"),
        (apollo(format="other"), "the format or the version of the manifest is unknown"),
        (apollo(version=2), "the format or the version of the manifest is unknown"),
        (apollo(operations=None), "`operations` is not a list"),
        (apollo(USERS), "an operation is not an object"),
        (apollo({"id": sha256(USERS)}), "an id or a text is not a string"),
        ({sha256(USERS): None}, "an id or a text is not a string"),
        ({"Users": USERS}, 'the id "Users" is not a SHA-256 hash'),
        (
            {hashlib.md5(USERS.encode()).hexdigest(): USERS},  # noqa: S324 - as Relay does
            "looks like a hash by MD5",
        ),
        (
            {hashlib.sha1(USERS.encode()).hexdigest(): USERS},  # noqa: S324 - as the default is
            "looks like a hash by SHA-1",
        ),
        ({sha256(USERS).upper(): USERS}, "is not a SHA-256 hash"),
        ({sha256(USERS): CREATE}, "is not the SHA-256 hash of its text"),
        ({sha256(USERS): USERS, sha256(CREATE): f"{CREATE} "}, "is not the SHA-256 hash"),
        (apollo(operation(USERS, id=sha256(CREATE))), "is not the SHA-256 hash of its text"),
        ({sha256("{ a } #\0"): "{ a } #\0"}, "has the character U+0000"),
    ],
)
def test_invalid_manifest_is_rejected(manifest: Any, problem: str) -> None:
    with pytest.raises(BadValue) as raised:
        parse_manifest(orjson.dumps(manifest))
    assert problem in raised.value.problem


def test_other_hashes_are_rejected_with_the_setting_of_the_tools() -> None:
    with pytest.raises(BadValue) as raised:
        parse_manifest(orjson.dumps({"0" * 32: USERS}))
    assert raised.value.allowed == (
        "`sha256:` and 64 hexadecimal digits in lower case, or the digits alone. Set"
        " `persistConfig.algorithm` of Relay's compiler to `SHA256`, or"
        " `persistedDocuments.hashAlgorithm` of GraphQL Code Generator to `sha256`; do not set"
        " `createOperationId` of Apollo"
    )


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": "\\ud800"}', b"\xff", b"query { a }"])
def test_file_without_json_is_rejected(content: bytes) -> None:
    with pytest.raises(BadValue) as raised:
        parse_manifest(content)
    assert raised.value.problem.startswith("the file is not valid JSON")


def test_missing_manifest_of_the_console_has_no_documents(tmp_path: Path) -> None:
    """The pages may be built after the start."""
    file = tmp_path / "documents.json"
    assert read_manifest(file) == []
    file.write_bytes(orjson.dumps({sha256(USERS): USERS}))
    assert read_manifest(file) == [USERS]
