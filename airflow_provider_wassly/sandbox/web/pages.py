"""Serves the inbox page from the folder ``page``, with headers that keep message contents from running as code."""

from __future__ import annotations

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

FOLDER = Path(__file__).with_name("page")

# Fixed here, because the machine's own table may differ, and with nosniff a browser rejects scripts of the wrong type.
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
    return _response("index.html")


async def part(request: Request) -> Response:
    """``GET /page/NAME``."""
    name = request.path_params["name"]
    if name not in {path.name for path in FOLDER.iterdir()}:
        raise HTTPException(404, f"The page has no file {name!r}")
    return _response(name)


def _response(name: str) -> Response:
    return FileResponse(
        FOLDER / name,
        media_type=TYPES.get(Path(name).suffix, "application/octet-stream"),
        headers={
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",  # another version of the package has different files of the same name
        },
    )


ROUTES = [Route("/", index, methods=["GET"]), Route("/page/{name}", part, methods=["GET"])]
