"""`epochal server`: the ledger behind HTTP, in the foreground."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from epochal.cli import render
from epochal.cli.options import PASSWORD_OF_LEDGER, retain_option, without_passwords
from epochal.cli.service_log import log_to_stderr
from epochal.settings import DEFAULT_SERVER_PORT, Retention

_DEFAULT_TOKEN = "the file `token` in the home"


@click.command("server")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=DEFAULT_SERVER_PORT, show_default=True,
    help="The port to listen on; 0 takes a free one.",
)  # fmt: skip
@click.option(
    "--ledger", "ledger_url", metavar="URL", callback=without_passwords(PASSWORD_OF_LEDGER),
    help="sqlite:///PATH or postgresql://...; default: EPOCHAL_LEDGER, else `up`'s.",
)  # fmt: skip
@click.option(
    "--storage", "storage_url", metavar="URL", help="Where code and logs are kept: a folder or an fsspec URL.",
    callback=without_passwords("fsspec reads ~/.config/fsspec, and object stores their own variables"),
)  # fmt: skip
@click.option(
    "--mlflow-uri", metavar="URL", callback=without_passwords("set MLFLOW_TRACKING_URI, or MLFLOW_TRACKING_PASSWORD"),
    help="The tracking server of the runs; default: MLFLOW_TRACKING_URI.",
)  # fmt: skip
@click.option(
    "--token-file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help=f"Holds an administrator's token, and is made where it is missing; default: {_DEFAULT_TOKEN}.",
)  # fmt: skip
@click.option(
    "--token", "more_tokens", multiple=True, metavar="USER:ROLE=FILE",
    help="Take the token in FILE as well, which is there already. Repeatable.",
)  # fmt: skip
@click.option(
    "--no-upgrade", "upgrade", is_flag=True, flag_value=False, default=True,
    help="Refuse a ledger of an older version: `epochal db upgrade` is for that.",
)  # fmt: skip
@retain_option("logs", "code", "events", "jobs")
@click.option("--single-user", is_flag=True, help="For this machine's user alone, who is then the administrator.")
def command(  # the options say what each is for
    ledger_url: str | None,
    storage_url: str | None,
    mlflow_uri: str | None,
    token_file: Path | None,
    more_tokens: tuple[str, ...],
    retention: Retention,
    **as_they_are: Any,
) -> int:
    """Take jobs, hold the queue, and answer agents and clients, until SIGTERM or Ctrl-C.

    Every request needs a token. `epochal token create` makes more of them.
    """
    import os

    from epochal.server.serving import serve
    from epochal.server.settings import FileToken, ServerSettings
    from epochal.settings import home
    from epochal.urls import is_loopback

    log_to_stderr("%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # it tells of each request
    here = home()
    settings = ServerSettings(
        ledger_url=ledger_url or os.environ.get("EPOCHAL_LEDGER") or here.served.ledger_url,
        storage_url=storage_url or str(here.served.store),
        mlflow_uri=mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI"),
        token_file=token_file or here.token,
        more_tokens=tuple(FileToken.parse(one) for one in more_tokens),
        retention=retention,
        **as_they_are,
    )
    if not is_loopback(settings.host):
        render.warning("tokens travel as they are over plain HTTP: put TLS in front of the server")
    serve(settings, on_ready=render.text)
    return 0
