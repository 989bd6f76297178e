"""`epochal ui`: the MLflow UI on this home."""

from __future__ import annotations

import signal
from typing import Any, NoReturn

import click

from epochal.cli import render
from epochal.cli.mlflow_pages import first_page, pages, recorded_at
from epochal.settings import DEFAULT_MLFLOW_PORT


@click.command("ui")
@click.option("--port", type=click.IntRange(1, 65535), default=DEFAULT_MLFLOW_PORT, show_default=True, help="Its port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--without-password", is_flag=True,
    help="Allow an address that other machines reach. The UI asks for no password: they can change and delete runs.",
)  # fmt: skip
def command(port: int, host: str, without_password: bool) -> int:
    """Open the MLflow UI on this machine's runs, until Ctrl-C.

    Where `epochal up` runs, its MLflow has them already: this says where, and returns.
    """
    from epochal.errors import UsageError
    from epochal.files import require_writable
    from epochal.settings import home, tracking_uri
    from epochal.tracking.server import TrackingServer
    from epochal.urls import is_loopback

    require_writable(home().root)  # before MLflow tries, whose words for it are a traceback in its log
    uri, there = tracking_uri(), pages()
    if there.served:
        render.message("MLflow runs already, and has the runs of this machine at")
        render.text(first_page(there.root))
        return 0
    recorded_at()
    if not is_loopback(host):
        warning = f"whoever reaches {host}:{port} can read, change and delete every run: there is no password"
        if not without_password:
            raise UsageError(warning, "stay on 127.0.0.1, or add --without-password on a network that you trust")
        render.warning(warning)
    log = home().root / "logs" / "ui.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    render.message("starting MLflow ...")
    try:
        with TrackingServer(uri, host, port, log) as server:
            render.text(first_page(server.url))
            render.message("Ctrl-C stops it")
            code = server.wait()
    except KeyboardInterrupt:
        return 0
    render.message(f"MLflow ended by itself; its output is in {log}")
    return code or 1


def _interrupt(number: int, frame: Any) -> NoReturn:
    """A service manager's SIGTERM stops the server as Ctrl-C does, which a shell's background jobs ignore otherwise."""
    raise KeyboardInterrupt
