"""The table of the results and their targets, as Markdown and JSON."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLUMNS = ("what", "ours", "compared with", "ratio", "target", "met")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A result of the benchmark, compared with its target if it has one."""

    name: str
    ours: str
    """The result of SegmentQL, with its unit."""
    compared: str = ""
    """The result with which it is compared."""
    value: float | None = None
    """The value that is compared with the target, in `unit`: usually a ratio."""
    unit: str = "x"
    min_value: float | None = None
    """The target as a minimum. A row has at most one target."""
    max_value: float | None = None
    """The target as a maximum."""
    skip_reason: str | None = None
    """The reason why there is no result."""
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The absolute values for the JSON file."""

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met. None if there is no target or no value."""
        if self.value is None:
            return None
        if self.min_value is not None:
            return self.value >= self.min_value
        if self.max_value is not None:
            return self.value <= self.max_value
        return None

    @property
    def target(self) -> str:
        if self.min_value is not None:
            return f">= {self.min_value:,g}{self._unit}"
        if self.max_value is not None:
            return f"<= {self.max_value:,g}{self._unit}"
        return ""

    @property
    def _unit(self) -> str:
        return self.unit if self.unit in {"x", ""} else f" {self.unit}"

    def cells(self, *, with_targets: bool) -> tuple[str, ...]:
        if self.skip_reason:
            return (self.name, self.ours, f"skipped: {self.skip_reason}", "", self.target, "")
        ratio = "" if self.value is None else f"{_three_digits(self.value)}{self._unit}"
        is_met = {None: "", True: "yes", False: "NO"}[self.is_met] if with_targets else ""
        return (self.name, self.ours, self.compared, ratio, self.target, is_met)

    def as_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "target": self.target, "met": self.is_met}


def _three_digits(value: float) -> str:
    """Return a value with three significant digits, or as a whole number from 1,000 on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004


def format_table(rows: Sequence[Row], *, with_targets: bool) -> str:
    """Return the rows as an aligned Markdown table."""
    lines = [COLUMNS, *(row.cells(with_targets=with_targets) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def write_json(path: Path, rows: Sequence[Row], machine: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine, "rows": [row.as_json() for row in rows]}
    path.write_text(json.dumps(results, indent=2) + "\n")
