"""Builds the Grafana dashboards from the panels in the modules of this folder.

    python monitoring/grafana/build.py

The JSON is Grafana's dashboard model, schema 39:
https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_panels import DATA
from panels import Panel
from service_panels import SERVICE
from work_panels import WORK

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "segmentql"}
SCHEMA = 39
COLUMNS, WIDTH, HEIGHT = 24, 8, 8

DASHBOARDS = {
    "service": ("SegmentQL: service", SERVICE),
    "work": ("SegmentQL: work", WORK),
    "data": ("SegmentQL: data", DATA),
}


def dashboard(uid: str, title: str, panels: Sequence[Panel]) -> dict[str, Any]:
    return {
        "uid": f"segmentql-{uid}",
        "title": title,
        "tags": ["segmentql"],
        "schemaVersion": SCHEMA,
        "editable": False,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, COLUMNS // WIDTH)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": {
            "legend": {
                "calcs": [],
                "displayMode": "list",
                "placement": "bottom",
                "showLegend": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + position),
                "datasource": SOURCE,
                "expr": query,
                "legendFormat": legend,
            }
            for position, (query, legend) in enumerate(panel.queries)
        ],
    }


def render(name: str) -> str:
    title, panels = DASHBOARDS[name]
    return json.dumps(dashboard(name, title, panels), indent=2) + "\n"


if __name__ == "__main__":
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(render(name))
