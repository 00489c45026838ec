"""MinIO's set-up for compose, as far as it can be looked at without MinIO.

A stand-in for `mc` writes down what it is asked: nothing else of the script is replaced.
"""

import ast
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from segmentql.adapters.bucket import RULE
from segmentql.settings import child_environment

ROOT = Path(__file__).parents[1]
ADAPTERS = ROOT / "src" / "segmentql" / "adapters"
SCRIPT = ROOT / "minio" / "set-up.sh"

# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
ACTIONS = {
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "complete_multipart_upload": "s3:PutObject",
    "create_bucket": "s3:CreateBucket",
    "create_multipart_upload": "s3:PutObject",
    "delete_object": "s3:DeleteObject",
    "get_bucket_lifecycle_configuration": "s3:GetLifecycleConfiguration",
    "get_object": "s3:GetObject",
    "list_multipart_uploads": "s3:ListBucketMultipartUploads",
    "list_objects_v2": "s3:ListBucket",
    "put_bucket_lifecycle_configuration": "s3:PutLifecycleConfiguration",
    "put_object": "s3:PutObject",
    "upload_part": "s3:PutObject",
}
OF_THE_BUCKET_ITSELF = {"s3:ListBucket", "s3:ListBucketMultipartUploads"}
OF_THE_SET_UP = {"s3:CreateBucket", "s3:GetLifecycleConfiguration", "s3:PutLifecycleConfiguration"}

SETTINGS = {
    "SEGMENTQL_S3_ENDPOINT_URL": "http://minio:9000",
    "SEGMENTQL_S3_BUCKET": "some-reports",
    "SEGMENTQL_S3_ACCESS_KEY": "the-user",
    "SEGMENTQL_S3_SECRET_KEY": 'secret "$(word)" \\1',
    "MINIO_ROOT_USER": "the-root",
    "MINIO_ROOT_PASSWORD": "secret 'root",
}


class Mc:
    """What the stand-in was asked: its arguments, and what was piped to it."""

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

    def was_asked(self) -> bool:
        return self._log.exists()

    def calls(self) -> dict[str, str]:
        """What was piped, by the arguments."""
        parts = self._log.read_text().split("CALL ")[1:]
        return dict(part.split("\n", 1) for part in parts)


@pytest.fixture
def mc(tmp_path: Path) -> Mc:
    return Mc(tmp_path)


def asked_of_the_store() -> set[str]:
    """The names of S3's calls in our code: methods of a client, and what a link is signed for."""
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


def test_the_policy_allows_what_the_service_asks_and_nothing_else(mc: Mc) -> None:
    assert asked_of_the_store() == set(ACTIONS)
    assert mc.run_script().returncode == 0
    policy = json.loads(
        mc.calls()["--quiet admin policy create store segmentql-reports /dev/stdin"]
    )
    allowed: dict[str, set[str]] = {}
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        (resource,) = statement["Resource"]
        allowed.setdefault(resource, set()).update(statement["Action"])
    needed = set(ACTIONS.values()) - OF_THE_SET_UP
    assert allowed == {
        "arn:aws:s3:::some-reports": OF_THE_BUCKET_ITSELF,
        "arn:aws:s3:::some-reports/*": needed - OF_THE_BUCKET_ITSELF,
    }


def test_files_expire_a_day_after_the_scheduler_deletes_them(mc: Mc) -> None:
    for days, changes in ((31, {}), (8, {"SEGMENTQL_REPORT_RETENTION_DAYS": "7"})):
        assert mc.run_script(**changes).returncode == 0
        lifecycle: Any = json.loads(mc.calls()["--quiet ilm import store/some-reports"])
        (rule,) = lifecycle["Rules"]
        assert rule == {
            "ID": RULE,
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "Expiration": {"Days": days},
        }


def test_keys_go_through_pipes_whatever_is_in_them(mc: Mc) -> None:
    done = mc.run_script()
    assert (done.returncode, done.stdout, done.stderr) == (0, "bucket some-reports is ready\n", "")
    calls = mc.calls()
    assert calls["--quiet alias set store http://minio:9000"] == "the-root\nsecret 'root\n"
    assert calls["--quiet admin user add store"] == 'the-user\nsecret "$(word)" \\1\n'
    assert not any("secret" in arguments for arguments in calls)


def test_a_second_time_attaches_nothing_twice(mc: Mc) -> None:
    attach = "--quiet admin policy attach store segmentql-reports --user the-user"
    assert mc.run_script().returncode == 0
    assert attach in mc.calls()
    mc.folder.joinpath("calls").unlink()
    mc.attached.write_text("User: the-user\n  Policies:\n    segmentql-reports\n")
    assert mc.run_script().returncode == 0
    assert attach not in mc.calls()


@pytest.mark.parametrize("name", SETTINGS)
def test_without_a_setting_nothing_is_asked(mc: Mc, name: str) -> None:
    done = mc.run_script(**{name: ""})
    assert done.returncode != 0
    assert (done.stdout, mc.was_asked()) == ("", False)
    assert name in done.stderr
