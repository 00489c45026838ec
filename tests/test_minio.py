"""MinIO's set-up for compose works as far as that can be tested without MinIO.

A stand-in for `mc` records its arguments; every other part of the script is real.
"""

import ast
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from segmentql.adapters.bucket import FILES_RULE, RULE, UPLOADS_RULE
from segmentql.settings import child_environment

ROOT = Path(__file__).parents[1]
ADAPTERS = ROOT / "src" / "segmentql" / "adapters"
SCRIPT = ROOT / "minio" / "set-up.sh"

# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
ACTIONS = {
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "complete_multipart_upload": "s3:PutObject",
    "copy_object": "s3:PutObject",  # and s3:GetObject for the source
    "create_bucket": "s3:CreateBucket",
    "create_multipart_upload": "s3:PutObject",
    "delete_bucket_cors": "s3:PutBucketCORS",
    "delete_object": "s3:DeleteObject",
    "get_bucket_cors": "s3:GetBucketCORS",
    "get_bucket_lifecycle_configuration": "s3:GetLifecycleConfiguration",
    "get_object": "s3:GetObject",
    "head_object": "s3:GetObject",
    "list_multipart_uploads": "s3:ListBucketMultipartUploads",
    "list_objects_v2": "s3:ListBucket",
    "put_bucket_cors": "s3:PutBucketCORS",
    "put_bucket_lifecycle_configuration": "s3:PutLifecycleConfiguration",
    "put_object": "s3:PutObject",
    "upload_part": "s3:PutObject",
}
BUCKET_OPERATIONS = {"s3:ListBucket", "s3:ListBucketMultipartUploads"}
SETUP_OPERATIONS = {
    "s3:CreateBucket",
    "s3:GetBucketCORS",
    "s3:GetLifecycleConfiguration",
    "s3:PutBucketCORS",
    "s3:PutLifecycleConfiguration",
}

SETTINGS = {
    "SEGMENTQL_S3_ENDPOINT_URL": "http://store:9000",
    "SEGMENTQL_S3_BUCKET": "some-reports",
    "SEGMENTQL_S3_ACCESS_KEY": "the-user",
    "SEGMENTQL_S3_SECRET_KEY": 'secret "$(word)" \\1',
    "MINIO_ROOT_USER": "the-root",
    "MINIO_ROOT_PASSWORD": "secret 'root",
}


class Mc:
    """The recorded calls of the stand-in: its arguments and its standard input."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.attached = folder / "attached"
        self._log = folder / "calls"
        program = folder / "mc"
        program.write_text(
            "#!/bin/sh\n"
            f'{{ echo "CALL $*"; case $* in *attach*|*entities*|*mb*|*anonymous*) ;; '
            f"*) cat ;; esac; }} >> {self._log}\n"
            f"case $* in *entities*) cat {self.attached} ;; esac\n"
        )
        program.chmod(0o755)
        self.attached.write_text("")

    def run_script(self, **changes: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["/bin/sh", str(SCRIPT)],
            env=child_environment({"PATH": f"{self.folder}:/usr/bin:/bin", **SETTINGS, **changes}),
            capture_output=True,
            text=True,
            check=False,
        )

    def recorded_calls(self) -> bool:
        return self._log.exists()

    def calls(self) -> dict[str, str]:
        """Return the standard input of each call, by its arguments."""
        parts = self._log.read_text().split("CALL ")[1:]
        return dict(part.split("\n", 1) for part in parts)


@pytest.fixture
def mc(tmp_path: Path) -> Mc:
    return Mc(tmp_path)


def used_operations() -> set[str]:
    """Return the S3 operations in our code: methods of a client, and signed operations."""
    names = set()
    for path in ADAPTERS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr == "generate_presigned_url":
                names.add(ast.literal_eval(node.args[0]))
            elif isinstance(node.func.value, ast.Name) and node.func.value.id == "client":
                names.add(node.func.attr)
    return names - {"close"}


def test_policy_allows_exactly_the_used_operations(mc: Mc) -> None:
    assert used_operations() == set(ACTIONS)
    assert mc.run_script().returncode == 0
    policy = json.loads(
        mc.calls()["--quiet admin policy create store segmentql-reports /dev/stdin"]
    )
    allowed: dict[str, set[str]] = {}
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        (resource,) = statement["Resource"]
        allowed.setdefault(resource, set()).update(statement["Action"])
    needed = set(ACTIONS.values()) - SETUP_OPERATIONS
    assert allowed == {
        "arn:aws:s3:::some-reports": BUCKET_OPERATIONS,
        "arn:aws:s3:::some-reports/*": needed - BUCKET_OPERATIONS,
    }


def test_policy_in_the_documentation_allows_exactly_the_used_operations() -> None:
    policy = json.loads((ROOT / "docs" / "operations" / "s3-policy.json").read_text())
    allowed = {
        statement["Sid"]: (set(statement["Action"]), statement["Resource"])
        for statement in policy["Statement"]
    }
    files = set(ACTIONS.values()) - SETUP_OPERATIONS - BUCKET_OPERATIONS
    assert allowed == {
        "Service": (BUCKET_OPERATIONS, ["arn:aws:s3:::BUCKET"]),
        "Files": (files, ["arn:aws:s3:::BUCKET/*"]),
        "SetUp": (SETUP_OPERATIONS, ["arn:aws:s3:::BUCKET"]),
    }


def test_files_expire_a_day_after_their_deletion_by_the_scheduler(mc: Mc) -> None:
    for days, changes in (
        (31, {}),
        (8, {"SEGMENTQL_REPORT_RETENTION_DAYS": "7"}),
        (2, {"SEGMENTQL_REPORT_RETENTION_DAYS": "1"}),
    ):
        assert mc.run_script(**changes).returncode == 0
        lifecycle: Any = json.loads(mc.calls()["--quiet ilm import store/some-reports"])
        assert lifecycle["Rules"] == [
            {
                "ID": rule,
                "Status": "Enabled",
                "Filter": {"Prefix": prefix},
                "Expiration": {"Days": expire_days},
            }
            for rule, prefix, expire_days in (
                (UPLOADS_RULE, "imports/uploads/", min(days, 3)),
                (FILES_RULE, "imports/files/", min(days, 8)),
                (RULE, "", days),
            )
        ]


def test_keys_of_any_text_are_passed_through_pipes(mc: Mc) -> None:
    result = mc.run_script()
    assert (result.returncode, result.stdout, result.stderr) == (
        0,
        "bucket some-reports is ready\n",
        "",
    )
    calls = mc.calls()
    assert calls["--quiet alias set store http://store:9000"] == "the-root\nsecret 'root\n"
    assert calls["--quiet admin user add store"] == 'the-user\nsecret "$(word)" \\1\n'
    assert not any("secret" in arguments for arguments in calls)


def test_second_run_attaches_no_policy_again(mc: Mc) -> None:
    attach = "--quiet admin policy attach store segmentql-reports --user the-user"
    assert mc.run_script().returncode == 0
    assert attach in mc.calls()
    mc.folder.joinpath("calls").unlink()
    mc.attached.write_text("User: the-user\n  Policies:\n    segmentql-reports\n")
    assert mc.run_script().returncode == 0
    assert attach not in mc.calls()


@pytest.mark.parametrize("name", SETTINGS)
def test_missing_setting_stops_before_any_call(mc: Mc, name: str) -> None:
    result = mc.run_script(**{name: ""})
    assert result.returncode != 0
    assert (result.stdout, mc.recorded_calls()) == ("", False)
    assert name in result.stderr
