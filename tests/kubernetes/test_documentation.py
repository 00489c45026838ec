"""The page about Kubernetes: its values are valid, and its commands exist."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from helm import install_tools
from segmentql.settings import Settings
from segmentql.validators import key_token
from tests.kubernetes.charts import CHART, ROOT, run_helm, schema_errors

PAGE = (ROOT / "docs/operations/kubernetes.md").read_text()
BLOCKS = re.findall(r"^( *)```(yaml)?\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
EXAMPLES = [text for _, language, text in BLOCKS if language == "yaml"]
COMMANDS = [
    line.strip()
    for _, language, text in BLOCKS
    if not language
    for line in text.replace("\\\n", "").splitlines()
    if line.strip().startswith(("helm ", "kubectl ", "docker "))
]


def test_documented_values_are_valid(tmp_path: Path) -> None:
    assert len(EXAMPLES) == 2
    files = []
    for number, text in enumerate(EXAMPLES):
        file = tmp_path / f"values-{number}.yaml"
        file.write_text(text)
        files += ["--values", str(file)]
    done = run_helm("template", "segmentql", str(CHART), *files, "--kube-version", "1.37.0")
    assert done.returncode == 0, done.stderr
    items = [item for item in yaml.safe_load_all(done.stdout) if item]
    assert schema_errors(install_tools.VERSIONS[-1], items) == []
    jobs = {item["metadata"]["name"] for item in items if item["kind"] == "Job"}
    assert jobs == set(re.findall(r"^\| Job `([\w-]+)`", PAGE, re.MULTILINE))


def test_documented_error_is_the_error_of_helm(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(EXAMPLES[0])
    wrong = ("--values", str(file), "--set", "settings.SEGMENTQL_RATE_PER_SEC=1")
    done = run_helm("template", "segmentql", str(CHART), *wrong, "--kube-version", "1.37.0")
    for line in done.stderr.strip().splitlines():
        assert f"   {line}\n" in PAGE


@pytest.mark.parametrize(
    "command", [line for line in COMMANDS if line.startswith("helm ")], ids=lambda line: line[:20]
)
def test_documented_commands_of_helm_exist_with_their_options(command: str) -> None:
    _, name, *rest = shlex.split(command)
    text = run_helm(name, "--help").stdout
    options = [word.partition("=")[0] for word in rest if word.startswith("--")]
    assert options
    assert [option for option in options if f"{option} " not in text] == []
    if name == "install":
        dry = [word for word in rest if word not in {"--values", "values.yaml", "--wait"}]
        done = run_helm(name, *dry, "--dry-run=client", "--set", "image.repository=example")
        assert done.returncode == 0 or "incompatible with Kubernetes" in done.stderr, done.stderr


@pytest.mark.parametrize(
    "command",
    [line for line in COMMANDS if line.startswith("kubectl create")],
    ids=lambda line: line[:40],
)
def test_documented_commands_of_kubectl_create_objects(command: str) -> None:
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not on PATH")
    done = subprocess.run(
        ["bash", "-c", f"{command} --dry-run=client --output yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["kind"] in {"Namespace", "Secret"}


def test_documented_form_of_the_first_key_is_valid() -> None:
    [expression] = re.findall(r'first-key="(sgql_.*)"$', PAGE, re.MULTILINE)
    done = subprocess.run(
        ["bash", "-c", f'printf %s "{expression}"'], capture_output=True, text=True, check=True
    )
    key_token(done.stdout)


def test_documented_number_of_connections_follows_from_the_defaults() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    pool = Settings.model_fields["database_pool_size"].default
    pods, processes = values["api"]["replicas"], values["api"]["processes"]
    workers = values["worker"]["replicas"]
    total = pods * processes * (pool + 2) + workers * pool
    text = PAGE.replace("\N{MULTIPLICATION SIGN}", "*")
    assert f"{pods} * {processes} * {pool + 2} + {workers} * {pool} = {total}." in text
    assert f"runs: {total + processes * (pool + 2) + pool}," in PAGE
