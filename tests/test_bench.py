"""Parts of the benchmark whose errors would stay unnoticed.

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

from bench import cpu
from bench.comparison import measured_values
from bench.data import Sizes, slug
from bench.load import LoadResult
from bench.node import WHEEL
from bench.peer_queries import CONSTANT_USER_ID, ConstantOneUser
from bench.pgbench import Statement, build_script
from bench.postgraphile import PINNED, SOURCES, Installation, NotInstalled, find_postgraphile
from bench.queries import ADDED_INDEXES, REMOVED_INDEXES, ROLLOUT, OneUserInRollouts
from bench.table import Row, format_table

SIZES = Sizes(users=1000, memberships=4321, segments=20)


def test_each_user_is_in_distinct_segments_and_memberships_add_up() -> None:
    segments = [SIZES.segment_ids(user_id) for user_id in range(1, SIZES.users + 1)]
    assert sum(map(len, segments)) == SIZES.memberships
    for user_id, found in enumerate(segments, 1):
        to_join = [SIZES.segment_at(user_id, index) for index in ADDED_INDEXES]
        assert len({*found, *to_join}) == len(found) + len(to_join)
        assert {*found, *to_join} <= set(range(1, SIZES.segments + 1))
        assert [SIZES.segment_at(user_id, index) for index in REMOVED_INDEXES] == found[
            : len(REMOVED_INDEXES)
        ]


def test_too_few_segments_or_memberships_are_rejected() -> None:
    with pytest.raises(ValueError, match="two to join"):
        Sizes(users=10, memberships=50, segments=6)
    with pytest.raises(ValueError, match="two segments to leave"):
        Sizes(users=10, memberships=19, segments=20)


@pytest.mark.parametrize("index", [*ADDED_INDEXES, *REMOVED_INDEXES])
def test_pgbench_computes_the_same_segments(index: int) -> None:
    # For positive numbers the operators of pgbench are those of Python.
    expression = SIZES.pgbench_segment_at(index)
    for user_id in (1, 2, 999, 123_456):
        found = eval(expression.replace(":user_id", str(user_id)))  # noqa: S307
        assert found == SIZES.segment_at(user_id, index)


def test_pgbench_script_replaces_captured_values_by_variables() -> None:
    user_id = 5000
    add = [SIZES.segment_at(user_id, index) for index in ADDED_INDEXES]
    captured = Statement(
        "SELECT $1::BIGINT, $2::VARCHAR[], $3::BIGINT[], $4::INTEGER, $5::VARCHAR, $6::VARCHAR",
        (user_id, [f"s{add[0]}"], add, 4, None, "MANUAL"),
    )
    *_, begin, select, commit = build_script([captured], SIZES, user_id, range(1, 11)).splitlines()
    assert (begin, commit) == ("BEGIN;", "COMMIT;")
    assert select == (
        "SELECT CAST(:user_id AS bigint)::BIGINT, ARRAY['s' || :s_1]::VARCHAR[],"
        " ARRAY[CAST(:s_1 AS bigint), CAST(:s_2 AS bigint)]::BIGINT[],"
        " 4::INTEGER, NULL::VARCHAR, 'MANUAL'::VARCHAR;"
    )


def test_only_segments_with_a_rollout_may_differ_during_rollouts() -> None:
    request = OneUserInRollouts(SIZES, random.Random(0))  # noqa: S311
    expected = sorted(map(slug, SIZES.segment_ids(7)))

    def find_error(*slugs: str) -> str | None:
        return request.find_error(
            7, {"data": {"user": {"segments": [{"slug": name} for name in slugs]}}}
        )

    assert find_error(*expected) is None
    assert find_error(f"{ROLLOUT}1", f"{ROLLOUT}2", *expected) is None
    assert find_error(f"{ROLLOUT}1", *expected[1:])
    assert find_error("other", *expected)


def test_the_constant_server_must_return_the_segments_of_one_user() -> None:
    request = ConstantOneUser(SIZES, random.Random(0))  # noqa: S311

    def find_error(user_id: int) -> str | None:
        slugs = sorted(map(slug, SIZES.segment_ids(user_id)))
        return request.find_error(
            user_id + 1, {"data": {"user": {"segments": [{"slug": name} for name in slugs]}}}
        )

    assert find_error(CONSTANT_USER_ID) is None
    assert find_error(CONSTANT_USER_ID + 1)


def test_cpu_time_per_request_counts_the_warm_up() -> None:
    result = LoadResult(
        requests=10,
        responses=40,
        per_second=5,
        p50_ms=1,
        p90_ms=1,
        p99_ms=1,
        max_ms=1,
        checked=1,
        failed=0,
        client_cpu=0.5,
        first_failure=None,
    )
    values = measured_values(result, 0.02)
    assert values["server_cpu_us_per_request"] == pytest.approx(500)
    assert "server_cpu_us_per_request" not in measured_values(result, None)


def make_program(folder: Path, name: str, output: str) -> str:
    """Create a program that prints a line, and return its path."""
    program = folder / name
    program.write_text(f"#!/bin/sh\necho {output}\n")
    program.chmod(0o755)
    return str(program)


def install_postgraphile(folder: Path, **manifest: object) -> None:
    package = folder / "node_modules" / "postgraphile" / "package.json"
    package.parent.mkdir(parents=True)
    package.write_text(json.dumps({"version": PINNED, **manifest}))


@pytest.mark.parametrize("manifest", [{"engines": {"node": ">=22"}}, {}])
def test_postgraphile_uses_the_first_node_that_is_new_enough(
    tmp_path: Path, manifest: dict[str, object]
) -> None:
    install_postgraphile(tmp_path, **manifest)
    old = make_program(tmp_path, "old", "v20.20.2")
    new = make_program(tmp_path, "new", "v22.0.0")
    found = find_postgraphile(tmp_path, [old, new])
    assert found == Installation(new, tmp_path.resolve())


def test_postgraphile_is_skipped_if_no_node_is_new_enough(
    tmp_path: Path,
) -> None:
    install_postgraphile(tmp_path, engines={"node": ">=22"})
    old = make_program(tmp_path, "old", "v20.20.2")
    found = find_postgraphile(tmp_path, [old, str(tmp_path / "none")])
    assert isinstance(found, NotInstalled)
    assert f"PostGraphile {PINNED} needs Node 22 or later" in found.reason
    assert f"{old} is 20.20.2" in found.reason
    assert "make bench-peers" in found.reason


def test_postgraphile_is_skipped_if_missing_or_of_another_version(tmp_path: Path) -> None:
    assert find_postgraphile(tmp_path) == NotInstalled(
        "PostGraphile is not installed (run `make bench-peers`)"
    )
    install_postgraphile(tmp_path, version="4.14.1")
    assert find_postgraphile(tmp_path) == NotInstalled(
        f"PostGraphile is 4.14.1, not {PINNED} (run `make bench-peers`)"
    )


def test_the_lock_file_pins_the_peers_and_names_no_download_address() -> None:
    packages = json.loads((SOURCES / "package-lock.json").read_text())["packages"]
    assert packages["node_modules/postgraphile"]["version"] == PINNED
    assert not [name for name, package in packages.items() if "resolved" in package]
    installed = [package for name, package in packages.items() if name]
    assert all(package["integrity"].startswith("sha512-") for package in installed)


def test_the_benchmark_and_the_pages_use_the_same_node() -> None:
    build = Path(__file__).parents[1] / "web" / "build.py"
    assert f'NODE_WHEEL = "{WHEEL}"' in build.read_text().splitlines()


def test_a_value_is_compared_with_the_target() -> None:
    assert Row(name="", ours="", value=4, min_value=4).is_met is True
    assert Row(name="", ours="", value=3.9, min_value=4).is_met is False
    assert Row(name="", ours="", value=1.2, max_value=1.2).is_met is True
    assert Row(name="", ours="", value=1.3, max_value=1.2).is_met is False
    assert Row(name="", ours="", value=1.3).is_met is None
    assert Row(name="", ours="", min_value=4, skip_reason="no peer").is_met is None


def test_large_values_are_whole_numbers() -> None:
    row = Row(name="", ours="", value=23456.7, unit="per second", min_value=20_000)
    assert row.cells(with_targets=True)[3:5] == ("23,457 per second", ">= 20,000 per second")


def test_a_table_without_targets_has_no_verdict() -> None:
    rows = [Row(name="a read", ours="1 s", compared="2 s", value=0.5, min_value=3)]
    assert re.search(
        r"\| a read \| 1 s +\| 2 s +\| 0.5x +\| >= 3x +\| NO +\|",
        format_table(rows, with_targets=True),
    )
    assert "NO" not in format_table(rows, with_targets=False)


@pytest.mark.skipif(not cpu.is_supported(), reason="no /proc")
def test_cpu_time_includes_descendants_except_other_roots() -> None:
    script = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        combined = cpu.cpu_seconds({"tests": os.getpid()})
        separate = cpu.cpu_seconds({"tests": os.getpid(), "child": child.pid})
        child.communicate(b"\n")
    assert separate["child"] >= 0.25  # /proc counts in hundredths
    assert combined["tests"] >= separate["tests"] + 0.25 - 0.1
