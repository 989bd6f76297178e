"""Where a browser finds MLflow's pages on this machine's runs."""

from __future__ import annotations

from dataclasses import dataclass

UI_PORT = 5000
"""Where `epochal ui` listens unless told otherwise."""


@dataclass(frozen=True)
class Pages:
    """``root`` is MLflow's address. ``served`` is false where nothing is known to answer there yet."""

    root: str
    served: bool

    def said(self, page: str) -> str:
        """The page's address, for a person."""
        return page if self.served else f"{page} while `epochal ui` runs"


def pages() -> Pages:
    """The pages of the tracking server, of what `epochal up` started here, or of an `epochal ui` that is to come."""
    from epochal.local.service_state import read_services
    from epochal.settings import home, tracking_uri
    from epochal.tracking.pages import web
    from epochal.urls import LOOPBACK, http_url

    uri, services = tracking_uri(), read_services(home().services)
    if root := web(uri):
        return Pages(root, True)
    if services.running and uri == services.options.get("tracking_uri") and services.url("mlflow"):
        return Pages(services.url("mlflow"), True)
    return Pages(http_url(LOOPBACK, UI_PORT), False)


def first_page(root: str) -> str:
    """The runs of the experiment that was written to last from here; where none was, all experiments."""
    from epochal.settings import home, tracking_uri
    from epochal.tracking.pages import experiments_page, runs_page
    from epochal.tracking.shipped import newest_experiment

    newest = newest_experiment([home().storage, home().served.storage], {root, tracking_uri()})
    return runs_page(root, newest) if newest else experiments_page(root)
