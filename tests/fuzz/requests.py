"""HTTP requests in files, so that one that once did harm is sent again in every run.

A file is `METHOD target`, a line for each header, an empty line, and then the unchanged body.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"
JSON = "application/json"


@dataclass(frozen=True)
class HttpRequest:
    """An HTTP request."""

    body: bytes
    method: str = "POST"
    target: str = "/graphql"
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": JSON})

    @property
    def encoded_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers with any bytes that a header can carry."""
        return [(k.encode("latin-1"), v.encode("latin-1")) for k, v in self.headers.items()]

    def to_bytes(self) -> bytes:
        """Return the file's content for this request."""
        lines = [f"{self.method} {self.target}", *(f"{k}: {v}" for k, v in self.headers.items())]
        return "\n".join([*lines, "", ""]).encode("latin-1") + self.body


def read(file: Path) -> HttpRequest:
    """Return the request of a file."""
    head, _, body = file.read_bytes().partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    method, target = first.split(" ", 1)
    headers = dict(line.split(": ", 1) for line in lines)
    return HttpRequest(body, method, target, headers)


def save(sent: HttpRequest) -> Path:
    """Store a request that did harm in the corpus, and return its path."""
    content = sent.to_bytes()
    file = CORPUS / f"found-{hashlib.sha256(content).hexdigest()[:12]}.http"
    file.write_bytes(content)
    return file


def graphql_request(query: str, variables: Mapping[str, Any] | None = None) -> HttpRequest:
    """Return the request of a GraphQL operation.

    Values that JSON cannot hold are replaced by their names.
    """
    return HttpRequest(json.dumps({"query": query, "variables": variables}).encode())
