"""HTTP requests as files, so that one which once did harm is sent again in every run.

A file is `METHOD target`, a line for each header, an empty line, and then the body as it is.
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
class Sent:
    """One request."""

    body: bytes
    method: str = "POST"
    target: str = "/graphql"
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": JSON})

    @property
    def encoded_headers(self) -> list[tuple[bytes, bytes]]:
        """Any bytes that a header can carry."""
        return [(k.encode("latin-1"), v.encode("latin-1")) for k, v in self.headers.items()]

    def written(self) -> bytes:
        """As a file has it."""
        lines = [f"{self.method} {self.target}", *(f"{k}: {v}" for k, v in self.headers.items())]
        return "\n".join([*lines, "", ""]).encode("latin-1") + self.body


def read(file: Path) -> Sent:
    """The request of a file."""
    head, _, body = file.read_bytes().partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    method, target = first.split(" ", 1)
    headers = dict(line.split(": ", 1) for line in lines)
    return Sent(body, method, target, headers)


def keep(sent: Sent) -> Path:
    """Put a request that did harm into the corpus; where it is now."""
    content = sent.written()
    file = CORPUS / f"found-{hashlib.sha256(content).hexdigest()[:12]}.http"
    file.write_bytes(content)
    return file


def asking(query: str, variables: Mapping[str, Any] | None = None) -> Sent:
    """The request of a GraphQL operation; what JSON cannot hold as it is, it names."""
    return Sent(json.dumps({"query": query, "variables": variables}).encode())
