"""The command line: ``python -m airflow_provider_wassly.sandbox``."""

from __future__ import annotations

import argparse
import errno
import shlex
import signal
import sys
import threading

from airflow_provider_wassly.sandbox.box import Sandbox
from airflow_provider_wassly.sandbox.service.inbox import DEFAULT_MAX_MESSAGES

DEFAULT_PORT = 8095


def port(text: str) -> int:
    """Parse a port number. argparse uses this function's name in its error message."""
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_wassly.sandbox",
        description="A local stand-in for the Wassly service: it accepts messages, stores them and sends none.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=port, default=DEFAULT_PORT, help="port to listen on; 0 picks a free one")
    parser.add_argument("--apikey", default="sandbox-apikey", help="API key to accept")
    parser.add_argument("--token", default="sandbox-token", help="bearer token to accept from the start")
    parser.add_argument("--email", default="sandbox@example.com", help="email address of the account")
    parser.add_argument("--password", default="sandbox-password", help="password of the account")
    parser.add_argument("--conversations", type=int, default=1000, help="initial quota; each message uses up one")
    parser.add_argument(
        "--device",
        action="append",
        dest="devices",
        metavar="INSTANCE_ID",
        default=argparse.SUPPRESS,  # the Sandbox class has the default
        help="a connected device; repeat the option for several (default: sandbox-instance)",
    )
    parser.add_argument(
        "--data-dir",
        default=argparse.SUPPRESS,
        metavar="FOLDER",
        help="store messages and files here for the next start (default: delete them when the sandbox stops)",
    )
    parser.add_argument(
        "--max-messages", type=int, default=DEFAULT_MAX_MESSAGES, help="number of messages to keep, newest first"
    )
    parser.add_argument(
        "--allow-remote",
        action="store_true",
        default=argparse.SUPPRESS,
        help="allow a --host that other machines can reach; anyone who reaches it can read all messages",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """
    Run the sandbox until a signal ends it.

    :param arguments: the command line, without the program name. Default: that of this process.
    :return: the exit status.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        box = Sandbox(**vars(options))
    except ValueError as error:
        parser.error(str(error).replace("allow_remote", "--allow-remote"))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with box:
            print(f"The Wassly sandbox is listening on {box.url}")
            print(f"Open the inbox in a browser: {box.url}/")
            print("For local use only: it sends nothing, and anyone who reaches it can read the messages.")
            print(f"export AIRFLOW_CONN_WASSLY_DEFAULT={shlex.quote(box.connection)}", flush=True)
            stop.wait()
    except (ModuleNotFoundError, OSError) as error:
        hint = "; use --port" if isinstance(error, OSError) and error.errno == errno.EADDRINUSE else ""
        print(f"{error.strerror}{hint}" if isinstance(error, OSError) else error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
