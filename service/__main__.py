"""``python -m service``: the API over Redis, served by uvicorn. Settings come from ``ASCRIBE_*`` variables."""

from __future__ import annotations

import argparse
import socket
import sys

import uvicorn
from pydantic import ValidationError

from ascribe import logs
from ascribe.ledger.opening import open_ledger
from ascribe.settings import ServiceSettings
from service.app import create_app
from service.doorbell import CeleryDoorbell
from service.loopback import is_loopback
from service.watch import Watch

STOP_SECONDS = 25
"""For requests under way when the service is told to stop: less than the 30 after which a container is killed."""


def serve(settings: ServiceSettings) -> None:
    """Compose and run until a signal. Redis may be down: the service starts, and /readyz says so."""
    app = create_app(settings, ledger=open_ledger(settings), doorbell=CeleryDoorbell(settings))
    # Its own logging off: the application says one line a request, and the rest goes where ours goes.
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        server_header=False,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    _Server(config, app.state.watch).run()


class _Server(uvicorn.Server):
    """Lets waiting clients go when it is told to end: it would wait for them, and they for their jobs."""

    def __init__(self, config: uvicorn.Config, watch: Watch) -> None:
        super().__init__(config)
        self._watch = watch

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._watch.stop()
        await super().shutdown(sockets)


def main() -> int:
    given = _parser().parse_args()
    overrides = {name: value for name, value in vars(given).items() if value is not None}
    try:
        settings = ServiceSettings(**overrides)
    except ValidationError as error:
        # Not the error's own text: it repeats the values, and one of them may be the key.
        for item in error.errors(include_input=False, include_url=False):
            print(f"ASCRIBE_{'_'.join(map(str, item['loc'])).upper()}: {item['msg']}", file=sys.stderr)
        return 2
    if settings.api_key is None and not is_loopback(settings.host):
        print(
            "Without an API key the service binds a loopback address only: set ASCRIBE_API_KEY, or leave the host out.",
            file=sys.stderr,
        )
        return 2
    logs.configure(settings.log_format, settings.log_level)
    serve(settings)
    return 0


def _parser() -> argparse.ArgumentParser:
    names = ", ".join(f"ASCRIBE_{name.upper()}" for name in ServiceSettings.model_fields)
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve the Ascribe API. A flag wins over its variable.",
        epilog=f"Variables: {names}.",
    )
    parser.add_argument("--host", help="address to bind; beyond loopback only with an API key (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to bind, 0 for any free one (default 8000)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
