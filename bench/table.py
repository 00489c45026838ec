"""The table of ratios against the targets, for people and as JSON."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HEAD = ("what", "ours", "compared with", "ratio", "target", "met")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison. `measured` is what is held against the target: mostly a ratio."""

    what: str
    ours: str
    compared: str = ""
    measured: float | None = None
    unit: str = "x"
    at_least: float | None = None
    at_most: float | None = None
    skipped: str | None = None
    """Why this was not measured."""
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Absolute figures, for the JSON file."""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or nothing was measured."""
        if self.measured is None:
            return None
        if self.at_least is not None:
            return self.measured >= self.at_least
        if self.at_most is not None:
            return self.measured <= self.at_most
        return None

    @property
    def target(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:g}{self._unit}"
        if self.at_most is not None:
            return f"<= {self.at_most:g}{self._unit}"
        return ""

    @property
    def _unit(self) -> str:
        return self.unit if self.unit in {"x", ""} else f" {self.unit}"

    def cells(self, *, judged: bool) -> tuple[str, ...]:
        if self.skipped:
            return (self.what, self.ours, f"skipped: {self.skipped}", "", self.target, "")
        ratio = "" if self.measured is None else f"{self.measured:.3g}{self._unit}"
        met = {None: "", True: "yes", False: "NO"}[self.met] if judged else ""
        return (self.what, self.ours, self.compared, ratio, self.target, met)

    def as_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "target": self.target, "met": self.met}


def rendered(rows: Sequence[Row], *, judged: bool) -> str:
    """The rows as a Markdown table that can be read as it is."""
    lines = [HEAD, *(row.cells(judged=judged) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def write_json(path: Path, rows: Sequence[Row], machine: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine, "rows": [row.as_json() for row in rows]}
    path.write_text(json.dumps(found, indent=2) + "\n")
