"""Tests of the API and the workers pass with the service behind PgBouncer.

`SEGMENTQL_TEST_POOLER=1 make test` runs all of them.
"""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.pooler import pgbouncer_program

ROOT = Path(__file__).parents[2]

PARTS = (
    "tests/users/test_create_user.py",
    "tests/users/test_delete_user.py",
    "tests/memberships/test_expiry.py",
    "tests/memberships/test_expiry_checks.py",
    "tests/memberships/test_expiry_reads.py",
    "tests/memberships/test_segment_leaves.py",
    "tests/memberships/test_worker.py::test_delayed_message_records_a_short_ttl_without_the_scheduler",
    "tests/memberships/test_update_segment_members.py",
    "tests/memberships/test_segment_members_options.py",
    "tests/idempotency/test_concurrent_calls.py",
    "tests/adapters/test_history_counters.py",
)
"""Reads, changes, concurrent transactions, a worker, and the counters of DEBUG messages."""


@pytest.mark.slow  # starts PostgreSQL, Redis, the store, PgBouncer and a worker
async def test_representative_tests_pass_through_the_pooler() -> None:
    pgbouncer_program()  # skips this test if there is none
    # Without the options and the coverage of this run.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "COV_"))
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-m", "not e2e", "-p", "no:cacheprovider"),
        *PARTS,
        cwd=ROOT,
        env={**inherited, "SEGMENTQL_TEST_POOLER": "1"},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-4000:]
    assert b"skipped" not in output
