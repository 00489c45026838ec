"""Writes `segmentql/values.schema.json`, against which helm checks the values of the chart.

    python helm/values_schema.py

The names and ranges of the settings come from the code. A setting that the code does not show in
logs (`repr=False`) is a secret: the chart takes it from a Secret only.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from segmentql.settings import PREFIX, Settings

FILE = Path(__file__).parent / "segmentql" / "values.schema.json"

SET_BY_CHART = frozenset(
    {
        "SEGMENTQL_AUTH",
        "SEGMENTQL_DRAIN_SECONDS",
        "SEGMENTQL_HOST",
        "SEGMENTQL_PORT",
        "SEGMENTQL_WORKER_PORT",
        "SEGMENTQL_MIGRATION_DATABASE_URL",
        "SEGMENTQL_FIRST_KEY",
        "PROMETHEUS_MULTIPROC_DIR",
    }
)
"""Settings that follow from other values. `segmentql serve` creates the folder of the metrics."""

REQUIRED_SECRETS = ("SEGMENTQL_DATABASE_URL", "SEGMENTQL_REDIS_URL")
ON_OFF = {"on", "off"}

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "minLength": 1}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 1}
SECONDS: Schema = {"type": "integer", "minimum": 0}
DRAIN_SECONDS: Schema = {**SECONDS, "maximum": 300}
PORT: Schema = {"type": "integer", "minimum": 1024, "maximum": 65535}
ITEMS: Schema = {"type": "array", "items": {"type": "object"}}
ANY_OBJECT: Schema = {"type": "object"}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}


def variable(name: str, field: FieldInfo) -> str:
    """Return the environment variable of a field of the settings."""
    return str(field.validation_alias or PREFIX + name.upper())


def plain_settings() -> Mapping[str, str]:
    """Return the settings that are not secret, as variables with the names of their fields."""
    return {
        variable(name, field): name
        for name, field in Settings.model_fields.items()
        if field.repr and variable(name, field) not in SET_BY_CHART
    }


def secret_settings() -> list[str]:
    """Return the variables of the settings that only a Secret has."""
    found = {
        variable(name, field) for name, field in Settings.model_fields.items() if not field.repr
    }
    return sorted(found - SET_BY_CHART)


def closed(properties: Schema, required: tuple[str, ...] = ()) -> Schema:
    """Return the schema of an object that has no other properties."""
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | ({"required": list(required)} if required else {})


def setting_schema(field: Mapping[str, Any]) -> Schema:
    """Return the schema of a setting in values.yaml, from that of its field.

    YAML reads `on` and `off` as booleans. A list is one text in the environment.
    """
    if ON_OFF.issubset(field.get("enum", ())):
        return {"enum": [*field["enum"], True, False, None]}
    if "enum" in field:
        return {"enum": [*field["enum"], None]}
    kind = field.get("type", "string")
    if kind not in {"integer", "number"}:
        return {"type": ["string", "null"]}
    limits = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    return {"type": [kind, "null"]} | {name: field[name] for name in limits if name in field}


def values_schema() -> Schema:
    """Return the schema of all values."""
    fields = Settings.model_json_schema()["properties"]
    secret = closed({"name": NAME, "key": NAME}, ("name", "key"))
    nullable_secret = secret | {"type": ["object", "null"]}
    pods: Schema = {
        "replicas": {"type": "integer", "minimum": 0},
        "port": PORT,
        "resources": ANY_OBJECT,
        "podDisruptionBudget": closed(
            {"enabled": FLAG, "maxUnavailable": {"type": ["integer", "string"]}}
        ),
        "podAnnotations": TEXTS,
        "podLabels": TEXTS,
        "nodeSelector": TEXTS,
        "tolerations": ITEMS,
        "affinity": ANY_OBJECT,
        "priorityClassName": TEXT,
    }
    autoscaling = {
        "enabled": FLAG,
        "minReplicas": COUNT,
        "maxReplicas": COUNT,
        "targetCPUUtilizationPercentage": COUNT,
    }
    api = {"processes": COUNT, "drainSeconds": DRAIN_SECONDS, "autoscaling": closed(autoscaling)}
    path_type = {"enum": ["Prefix", "Exact", "ImplementationSpecific"]}
    paths = closed({"path": NAME, "pathType": path_type}, ("path", "pathType"))
    host = closed({"host": NAME, "paths": {"type": "array", "items": paths}}, ("host", "paths"))
    properties: Schema = {
        "global": ANY_OBJECT,
        "nameOverride": TEXT,
        "fullnameOverride": TEXT,
        "image": closed(
            {
                "repository": NAME,
                "tag": TEXT,
                "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
                "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
                "pullSecrets": ITEMS,
            },
            ("repository",),
        ),
        "settings": closed(
            {
                name: setting_schema(fields.get(field, {}))
                for name, field in plain_settings().items()
            }
        ),
        "secretSettings": closed(
            {
                name: secret if name in REQUIRED_SECRETS else nullable_secret
                for name in secret_settings()
            },
            REQUIRED_SECRETS,
        ),
        "listenAddress": NAME,
        "migration": closed(
            {
                "enabled": FLAG,
                "ownerDatabaseUrl": secret,
                "serviceAccountName": TEXT,
                "deadlineSeconds": COUNT,
                "backoffLimit": SECONDS,
                "resources": ANY_OBJECT,
            }
        ),
        "firstKey": closed({"enabled": FLAG, "secret": secret}),
        "bucket": closed({"enabled": FLAG}),
        "api": closed(pods | api),
        "worker": closed(pods),
        "podSecurityContext": ANY_OBJECT,
        "containerSecurityContext": ANY_OBJECT,
        "extraVolumes": ITEMS,
        "extraVolumeMounts": ITEMS,
        "serviceAccount": closed({"create": FLAG, "name": TEXT, "annotations": TEXTS}),
        "service": closed(
            {
                "type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
                "port": {"type": "integer", "minimum": 1, "maximum": 65535},
                "annotations": TEXTS,
            }
        ),
        "ingress": closed(
            {
                "enabled": FLAG,
                "className": TEXT,
                "annotations": TEXTS,
                "hosts": {"type": "array", "items": host},
                "tls": ITEMS,
            }
        ),
        "monitoring": closed({"enabled": FLAG, "interval": NAME, "labels": TEXTS}),
        "networkPolicy": closed(
            {"enabled": FLAG, "apiFrom": ITEMS, "metricsFrom": ITEMS, "egress": ITEMS}
        ),
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart segmentql. Written by helm/values_schema.py",
        **closed(properties, ("image", "secretSettings")),
    }


def schema_text() -> str:
    """Return the content of the file."""
    return json.dumps(values_schema(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(schema_text())
