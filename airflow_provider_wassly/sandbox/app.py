"""The application: which path leads where, and what a path that leads nowhere says."""

from __future__ import annotations

# Starlette asks for it only when the first form comes in; that it is missing must show at the start.
import python_multipart  # noqa: F401
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route, Router

from airflow_provider_wassly.sandbox.control.api import Control, Guard
from airflow_provider_wassly.sandbox.service.api import Account, Devices, JSONAnswer, Login, SendMessage
from airflow_provider_wassly.sandbox.service.faults import Faults
from airflow_provider_wassly.sandbox.service.state import ServiceState
from airflow_provider_wassly.sandbox.web.pages import ROUTES


async def login_page(request: Request) -> Response:
    """What a client meets that follows the redirect of a call without a valid token."""
    return HTMLResponse("<html><head><title>Login</title></head><body>Please log in.</body></html>")


async def http_error(request: Request, error: Exception) -> Response:
    """Answer an unknown path (404), a wrong method (405) and the like in JSON."""
    assert isinstance(error, HTTPException)
    return JSONAnswer({"success": False, "message": error.detail}, error.status_code, error.headers)


def create_app(store: ServiceState, faults: Faults, account: Account, *, host: str, allow_remote: bool) -> Starlette:
    """
    Build the application.

    :param store: the state it works on.
    :param faults: the faults that wait to strike.
    :param account: the credentials that are right.
    :param host: the name or address that it is served on.
    :param allow_remote: whether page and control API may be reached by other names than this machine's own.
    """
    what = (store, faults, account)
    control = Control(store, faults).router()
    page = Guard(Router(ROUTES, redirect_slashes=False), host, allow_remote)
    app = Starlette(
        routes=[
            Route("/api/login", Login(*what), methods=["POST"]),
            Route("/api/whatsapp-web-devices", Devices(*what), methods=["GET"]),
            Route("/api/whatsapp-web-send-message", SendMessage(*what), methods=["POST"]),
            Route("/login", login_page, methods=["GET"]),
            Mount("/sandbox", Guard(control, host, allow_remote)),
            Route("/", page, methods=["GET"]),
            Route("/page/{name}", page, methods=["GET"]),
        ],
        exception_handlers={HTTPException: http_error},
    )
    app.router.redirect_slashes = False
    return app
