"""Samples of `/metrics` by name and labels."""

import re
from collections.abc import Mapping
from typing import TypeAlias

import httpx

Samples: TypeAlias = Mapping[str, float]

_SAMPLE = re.compile(r"^([^# ][^ {]*(?:\{.*\})?) (\S+)$", re.MULTILINE)


async def samples(client: httpx.AsyncClient, url: str = "/metrics", **headers: str) -> Samples:
    """Return every sample of `/metrics`."""
    response = await client.get(url, headers=headers)
    assert response.status_code == 200
    return {name: float(value) for name, value in _SAMPLE.findall(response.text)}


def samples_of(all_samples: Samples, name: str) -> Samples:
    """Return the samples of one metric, by the labels between the braces."""
    return {
        key.removeprefix(name).strip("{}"): value
        for key, value in all_samples.items()
        if key == name or key.startswith(f"{name}{{")
    }
