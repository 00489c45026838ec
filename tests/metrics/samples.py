"""What tests of metrics read: samples by their names and labels."""

import re
from collections.abc import Mapping
from typing import TypeAlias

import httpx

Samples: TypeAlias = Mapping[str, float]

_SAMPLE = re.compile(r"^([^# ][^ {]*(?:\{.*\})?) (\S+)$", re.MULTILINE)


async def samples(client: httpx.AsyncClient, url: str = "/metrics", **headers: str) -> Samples:
    """Every sample that `/metrics` shows."""
    response = await client.get(url, headers=headers)
    assert response.status_code == 200
    return {name: float(value) for name, value in _SAMPLE.findall(response.text)}


def samples_of(read: Samples, name: str) -> Samples:
    """The samples of one metric, by what is between the braces."""
    return {
        key.removeprefix(name).strip("{}"): value
        for key, value in read.items()
        if key == name or key.startswith(f"{name}{{")
    }
