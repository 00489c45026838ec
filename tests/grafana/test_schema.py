"""The dashboards conform to Grafana's own types, of the version in compose.yaml.

TypeScript rejects unknown fields, missing fields and values that are not members of an enum. This
does not prove that Grafana draws the panels: Grafana itself is in no package registry. The package
has no types for the provisioning files and for queries of Prometheus.
"""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.node import install_packages, run_npm
from tests.compose_file import ROOT, load

HERE = Path(__file__).parent
DASHBOARDS = ROOT / "monitoring/grafana/dashboards"
FILES = (".npmrc", "package.json", "package-lock.json", "tsconfig.json", "types.ts")


def panel(dashboard: Any) -> Any:
    return dashboard["panels"][0]


MISTAKES: list[tuple[str, Callable[[Any], Any]]] = [
    ("unknown field of the dashboard", lambda d: d.update(refreshed="30s")),
    ("refresh as a number", lambda d: d.update(refresh=30)),
    ("no version of the schema", lambda d: d.pop("schemaVersion")),
    ("unknown field of a panel", lambda d: panel(d).update(height=8)),
    ("no type of a panel", lambda d: panel(d).pop("type")),
    ("position without a width", lambda d: panel(d)["gridPos"].pop("w")),
    ("unit as a number", lambda d: panel(d)["fieldConfig"]["defaults"].update(unit=1)),
    ("unknown display mode", lambda d: panel(d)["options"]["legend"].update(displayMode="row")),
    ("no list of calculations", lambda d: panel(d)["options"]["legend"].pop("calcs")),
    ("unknown tooltip mode", lambda d: panel(d)["options"]["tooltip"].update(mode="all")),
    ("query without an id", lambda d: panel(d)["targets"][0].pop("refId")),
    ("misspelt field of a query", lambda d: panel(d)["targets"][0].update(exprr="up")),
]


def _source() -> Iterator[str]:
    yield 'import type { OurDashboard } from "./types";'
    dashboards = {file.stem: json.loads(file.read_text()) for file in DASHBOARDS.iterdir()}
    assert len(dashboards) == 3
    for name, dashboard in dashboards.items():
        yield f"export const {name}: OurDashboard = {json.dumps(dashboard)};"
    for number, (name, make_mistake) in enumerate(MISTAKES):
        mistaken = copy.deepcopy(dashboards["data"])
        make_mistake(mistaken)
        # The compiler reports the comment if the line after it is valid.
        yield f"// @ts-expect-error {name}"
        yield f"export const mistake{number}: OurDashboard = {json.dumps(mistaken)};"


@pytest.mark.slow  # it installs packages and runs the compiler
async def test_dashboards_conform_to_the_types_of_grafana(tmp_path: Path) -> None:
    for name in FILES:
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "dashboards.ts").write_text("\n".join(_source()))
    await install_packages(tmp_path)
    await run_npm("exec", "--offline", "--", "tsc", folder=tmp_path)


def test_types_are_those_of_the_grafana_in_compose() -> None:
    version = json.loads((HERE / "package.json").read_text())["dependencies"]["@grafana/schema"]
    image = load("minio")["services"]["grafana"]["image"]
    assert image == f"${{GRAFANA_IMAGE:-grafana/grafana:{version}}}"
