"""Runs `tests/e2e/test_chaos.py` with many rounds."""

import subprocess
import sys
from pathlib import Path

from segmentql.settings import child_environment

ROOT = Path(__file__).parents[1]


def run(rounds: int, seed: int | None) -> int:
    """Run the test with its output, and return its exit status."""
    environment = {"SEGMENTQL_TEST_CHAOS_ROUNDS": str(rounds)}
    if seed is not None:
        environment["SEGMENTQL_TEST_CHAOS_SEED"] = str(seed)
    completed = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "e2e", "-s", "tests/e2e/test_chaos.py"],
        cwd=ROOT,
        env=child_environment(environment),
        check=False,
    )
    return completed.returncode
