"""The language of the repository: documents and code use none of the refused words.

A failure names the file, the line and the word.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CHECKED = (
    "*.md",
    ".env.example",
    "schema.graphql",
    "src/**/*.py",
    "alembic/**/*.py",
    "bench/**/*",
    "docs/**/*.md",
    "docs/*.py",
    "web/README.md",
    "web/src/graphiql/examples.js",
    "helm/**/*",
    "minio/*",
    "monitoring/**/*.md",
    "monitoring/**/*.yml",
    "tests/test_docs.py",
)
"""Glob patterns of the files that are checked, from the repository's root."""

REFUSED_WORDS = {
    "whoever": r"whoever",
    "whom": r"whom",
    "bears": r"bears?",
    "bearer": r"bearers?",
    "anew": r"anew",
    "mend": r"mend(?:s|ed|ing)?",
    "for want of": r"for want of",
    "come to pass": r"(?:come|comes|came|coming) to pass",
    "somebody": r"somebody",
    "lets in": r"lets? in",
    "is told": r"(?:is|are|was|were|be|been) told",
    "tells": r"tells",
    "haste": r"haste",
    "dear": r"dear",
    "turned away": r"turn(?:s|ed|ing)? away",
    "so long": r"so long",
    "but for": r"but for",
}
"""Words that a reader has to translate, and their forms, without regard to case."""

ALLOWED = re.compile(
    r"Authorization: Bearer|\bBearer (?:<|\$|sgql_|realm|\{)|\bbearer (?:token|\$)"
    r"|\(\?i:bearer\)"
)
"""`Bearer` as the scheme of the header `Authorization`."""

REFUSED = re.compile(
    rf"(?i)(?<![\w-])(?:{'|'.join(REFUSED_WORDS.values()).replace(' ', ' +')})(?![\w-])"
)


def checked_files() -> list[Path]:
    files = {path for pattern in CHECKED for path in ROOT.glob(pattern)}
    generated = {".venv", "__pycache__", "static"}
    return sorted(path for path in files if path.is_file() and not generated & {*path.parts})


def refused_words(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line, from 1, and the text of each refused word. A line end counts as a space."""
    text = ALLOWED.sub(lambda found: "_" * len(found[0]), text)
    # Comment marks and indents at the start of a line do not hide a word of two lines.
    flat = re.sub(r"\n[ \t#/*>-]*", lambda found: "\n" + " " * (len(found[0]) - 1), text)
    for found in REFUSED.finditer(re.sub(r"\s", " ", flat)):
        yield text.count("\n", 0, found.start()) + 1, " ".join(found[0].split())


def test_refused_words_are_found_with_their_line() -> None:
    text = (
        "# Plain.\n# Whoever waits is\n#   told; a bearer, `Authorization: Bearer sgql_`, tellers."
    )
    assert list(refused_words(text)) == [(2, "Whoever"), (2, "is told"), (3, "bearer")]


@pytest.mark.parametrize("path", checked_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_has_a_refused_word(path: Path) -> None:
    name = path.relative_to(ROOT)
    found = [f'{name}:{line}: "{word}"' for line, word in refused_words(path.read_text())]
    assert found == []


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring, those of constants and fields included."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            if (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                yield statement.lineno, statement.value.value


def is_sentence(summary: str) -> bool:
    """Return whether the first paragraph of a docstring begins and ends as a sentence does."""
    return bool(re.match(r"[A-Z`\"'/.-]", summary)) and summary.endswith((".", ":", "?", "!", "`"))


PYTHON = [path for path in checked_files() if path.suffix == ".py"]


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_are_sentences(path: Path) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {summary}"
        for line, text in docstrings(ast.parse(path.read_text()))
        for summary in [" ".join(text.strip().split("\n\n")[0].split())]
        if not is_sentence(summary)
    ]
    assert found == []
