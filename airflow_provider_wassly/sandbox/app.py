"""The ASGI application: its routes, and the answer to an unknown path."""

from __future__ import annotations

# Starlette needs it for the first form. Importing it here makes the sandbox fail at the start if it is missing.
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
    """Answer a client that followed the redirect of a call without a valid token."""
    return HTMLResponse("<html><head><title>Login</title></head><body>Please log in.</body></html>")


async def http_error(request: Request, error: Exception) -> Response:
    """Answer with JSON to an unknown path (404), a wrong method (405) and similar errors."""
    assert isinstance(error, HTTPException)
    return JSONAnswer({"success": False, "message": error.detail}, error.status_code, error.headers)


def create_app(store: ServiceState, faults: Faults, account: Account, *, host: str, allow_remote: bool) -> Starlette:
    """
    Build the application.

    :param store: the state of the service.
    :param faults: the active faults.
    :param account: the valid credentials.
    :param host: the name or address to serve on.
    :param allow_remote: whether page and control API also answer to names other than this machine's own.
    """
    shared = (store, faults, account)
    control = Control(store, faults).router()
    page = Guard(Router(ROUTES, redirect_slashes=False), host, allow_remote)
    app = Starlette(
        routes=[
            Route("/api/login", Login(*shared), methods=["POST"]),
            Route("/api/whatsapp-web-devices", Devices(*shared), methods=["GET"]),
            Route("/api/whatsapp-web-send-message", SendMessage(*shared), methods=["POST"]),
            Route("/login", login_page, methods=["GET"]),
            Mount("/sandbox", Guard(control, host, allow_remote)),
            Route("/", page, methods=["GET"]),
            Route("/page/{name}", page, methods=["GET"]),
        ],
        exception_handlers={HTTPException: http_error},
    )
    app.router.redirect_slashes = False
    return app
