"""The number of API processes follows the processors and the memory of a machine or container."""

import os
from pathlib import Path

import pytest

from segmentql import machine

GIB = 1024**3


@pytest.mark.parametrize(
    ("text", "processors"),
    [("200000 100000\n", 2), ("50000 100000\n", 0.5), ("max 100000\n", float("inf"))],
)
def test_processor_limit_of_a_container(tmp_path: Path, text: str, processors: float) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert machine.processor_limit(tmp_path) == processors


@pytest.mark.parametrize(("text", "size"), [("536870912\n", 2**29), ("max\n", float("inf"))])
def test_memory_limit_of_a_container(tmp_path: Path, text: str, size: float) -> None:
    (tmp_path / "memory.max").write_text(text)
    assert machine.memory_limit(tmp_path) == size


def test_system_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    assert machine.processor_limit(tmp_path) == float("inf")
    assert machine.memory_limit(tmp_path) == float("inf")


@pytest.mark.parametrize(
    ("processors", "gibibytes", "expected"),
    [(8, 32, 4), (3, 32, 3), (4, 2.5, 2), (4, 0.9, 1), (1, 32, 1), (0.5, 32, 1), (2.5, 32, 2)],
)
def test_processes_fit_the_processors_and_the_memory(
    processors: float, gibibytes: float, expected: int
) -> None:
    fitting = machine.fitting_processes(processors=processors, memory=gibibytes * GIB, maximum=4)
    assert fitting == expected


def test_this_machine_can_run_a_process() -> None:
    assert machine.available_processors() == len(os.sched_getaffinity(0))
    assert GIB / 8 < machine.memory_bytes() < 2**50
    assert machine.api_processes(maximum=1) == 1
