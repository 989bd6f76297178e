"""Where a browser finds MLflow's pages on this machine's runs."""

from __future__ import annotations

from dataclasses import dataclass

from epochal.cli import render

_SEND_SECONDS = 10.0
"""For what earlier commands could not send: whoever wants to look does not want to wait longer."""


@dataclass(frozen=True)
class Pages:
    """``root`` is MLflow's address. ``served`` is false where nothing is known to answer there yet."""

    root: str
    served: bool

    def said(self, page: str) -> str:
        """The page's address, for a person."""
        return page if self.served else f"{page} while `epochal ui` runs"


def recorded_at() -> str:
    """The tracking URI, after jobs left behind were reconciled and what waits to be sent had its chance.

    What is not there yet is said: what MLflow shows of these jobs may be old.
    """
    from epochal.agent.reconcile import catch_up
    from epochal.settings import home, tracking_uri
    from epochal.tracking.syncer import BEING_SENT

    uri = tracking_uri()
    done = catch_up(home(), uri, _SEND_SECONDS)
    for attempt in done.interrupted:
        render.message(f"{attempt.job_id} was left behind by a process that died; it is PAUSED now")
    for job, synced in done.synced.items():
        # What another process is sending is there in a moment, and what somebody deleted is never to be.
        if synced.pending and not synced.deleted and synced.problem != BEING_SENT:
            lacks = f"MLflow does not have {synced.left} of {job} yet ({synced.problem})"
            render.warning(f"{lacks}: `epochal runs sync` sends it")
    return uri


def pages() -> Pages:
    """The pages of the tracking server, of what `epochal up` started here, or of an `epochal ui` that is to come."""
    from epochal.local.service_state import read_services
    from epochal.settings import DEFAULT_MLFLOW_PORT, home, tracking_uri
    from epochal.tracking.pages import web
    from epochal.urls import LOOPBACK, http_url, without_password

    uri, services = tracking_uri(), read_services(home().services)
    if root := web(uri):
        return Pages(root, True)
    # The services' options are kept without the password.
    if services.running and without_password(uri) == services.options.get("tracking_uri") and services.url("mlflow"):
        return Pages(services.url("mlflow"), True)
    return Pages(http_url(LOOPBACK, DEFAULT_MLFLOW_PORT), False)


def first_page(root: str) -> str:
    """The runs of the experiment that was written to last from here; where none was, all experiments."""
    from epochal.settings import home, tracking_uri
    from epochal.tracking.pages import experiments_page, runs_page
    from epochal.tracking.sync_state import newest_experiment

    newest = newest_experiment([home().storage, home().served.storage], {root, tracking_uri()})
    return runs_page(root, newest) if newest else experiments_page(root)
