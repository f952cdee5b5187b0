"""The inbox page: the files of the folder ``page``, and the headers that keep what was sent from becoming code."""

from __future__ import annotations

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

FOLDER = Path(__file__).with_name("page")

# Not asked of the machine, whose table may be any: with nosniff, a browser takes no script of another type.
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def index(request: Request) -> Response:
    """``GET /``."""
    return _file("index.html")


async def part(request: Request) -> Response:
    """``GET /page/NAME``."""
    name = request.path_params["name"]
    if name not in {path.name for path in FOLDER.iterdir()}:
        raise HTTPException(404, f"The page has no part {name!r}")
    return _file(name)


def _file(name: str) -> Response:
    return FileResponse(
        FOLDER / name,
        media_type=TYPES.get(Path(name).suffix, "application/octet-stream"),
        headers={
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",  # a newer version of the package brings other files of the same name
        },
    )


ROUTES = [Route("/", index, methods=["GET"]), Route("/page/{name}", part, methods=["GET"])]
