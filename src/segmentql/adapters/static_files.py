"""The files that the pages load: scripts, styles and fonts, which `web/build.py` builds.

Any client can request them without an API key. So nothing is compressed at the time of a request:
the build writes a `.gz` file next to each file that gzip makes smaller.
"""

import os
import stat
from mimetypes import guess_type
from pathlib import PurePath
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

from segmentql.adapters.content_encoding import ContentEncoding, negotiate_encoding

GZIP_SUFFIX: Final = ".gz"

HASHED_FOLDER: Final = "assets"
"""The folder of the files whose names contain a hash of their content."""

IMMUTABLE: Final = "public, max-age=31536000, immutable"
"""The `Cache-Control` of files that never change under the same name."""

_PRIVATE_SUFFIXES: Final = {".html", GZIP_SUFFIX}


class BuiltFiles(StaticFiles):
    """Static files that may be built after the start.

    Pages are not served, because they have routes of their own, which settings can disable.
    """

    async def check_config(self) -> None:
        """Allow a missing folder."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Find a file, except pages, compressed copies and files whose names begin with a dot."""
        parts = PurePath(path).parts
        if any(part.startswith(".") for part in parts):
            return "", None
        if PurePath(path).suffix.lower() in _PRIVATE_SUFFIXES:
            return "", None
        return super().lookup_path(path)

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Return a file, or its compressed copy if the client accepts gzip."""
        request_headers = Headers(scope=scope)
        media_type = guess_type(full_path)[0] or "application/octet-stream"
        headers: dict[str, str] = {}
        compressed = _stat_file(f"{os.fspath(full_path)}{GZIP_SUFFIX}")
        if compressed:
            headers["vary"] = "Accept-Encoding"
            accepted = ",".join(request_headers.getlist("accept-encoding")).encode("latin-1")
            if negotiate_encoding(accepted, has_zstd=False) is ContentEncoding.GZIP:
                headers["content-encoding"] = "gzip"
                full_path, stat_result = f"{os.fspath(full_path)}{GZIP_SUFFIX}", compressed
        if self.get_path(scope).startswith(f"{HASHED_FOLDER}{os.sep}"):
            headers["cache-control"] = IMMUTABLE
        response = FileResponse(
            full_path,
            status_code=status_code,
            headers=headers,
            media_type=media_type,
            stat_result=stat_result,
        )
        if self.is_not_modified(response.headers, request_headers):
            return NotModifiedResponse(response.headers)
        return response


def _stat_file(path: str) -> os.stat_result | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None
