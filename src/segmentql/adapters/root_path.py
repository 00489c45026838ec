"""The path below which a reverse proxy publishes the service, such as `/segmentql`."""

from starlette.types import Scope


def without_root_path(scope: Scope, root_path: str) -> Scope:
    """Return the scope of a request as if the proxy had removed the root path from its path.

    A path outside the root path stays as it is, because the proxy may have removed it already.

    Args:
        scope: The scope of the request. It is not changed.
        root_path: The root path, without a slash at its end.
    """
    path: str = scope.get("path", "")
    if path != root_path and not path.startswith(f"{root_path}/"):
        return scope
    return {**scope, "path": path[len(root_path) :] or "/"}
