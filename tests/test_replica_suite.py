"""Tests of the API also pass if a synchronous standby serves the reads.

`make test-replica` runs the tests of all features so, which takes many minutes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SAMPLE = (
    "tests/users/test_reading_users.py",
    "tests/users/test_user_keys.py",
    "tests/users/test_reading_by_key.py",
    "tests/users/test_changes_by_key.py",
    "tests/users/test_invalid_keys.py",
    "tests/users/test_setting_keys.py",
    "tests/explain/test_reasons.py",
    "tests/explain/test_rollout_reasons.py",
    "tests/ofrep/test_requests.py",
    "tests/graphql/test_dataloader.py",
    "tests/graphql/test_load_many.py",
)


@pytest.mark.slow  # it runs many tests on servers of its own
def test_sample_of_the_tests_passes_with_a_replica() -> None:
    arguments = ["-q", "-p", "no:cacheprovider", *SAMPLE]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=ROOT,
        env={**os.environ, "SEGMENTQL_TEST_REPLICA": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-5000:]
