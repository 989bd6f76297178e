"""The log of a service: what libraries put into words in it, tracebacks above all, is without credentials."""

from __future__ import annotations

import logging

from epochal.redaction import without_credentials


class Redacted(logging.Formatter):
    """Lines without credentials, whatever a record says."""

    def format(self, record: logging.LogRecord) -> str:
        return without_credentials(super().format(record))


def log_to_stderr(form: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(Redacted(form))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
