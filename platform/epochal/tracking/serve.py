"""MLflow's server as one process: `python -m epochal.tracking.serve URI HOST PORT`, with the same app and routes.

`mlflow server` imports mlflow to parse its options and again in a uvicorn of its own, which it leaves behind where it
is killed. Measured on 2 cores: 4.2 s and 494 MiB with it, 2.1 s and 248 MiB so.
"""

from __future__ import annotations

import os
import signal
import sys

from epochal.tracking.connection import artifact_root, prepare_sqlite, quiet_mlflow

_ARTIFACTS = "mlflow-artifacts:/"
_STOP_SECONDS = 5
"""How long requests that are being answered may take once the server is told to end."""


def serve(uri: str, host: str, port: int) -> None:
    """Serve the runs in the SQLite file ``uri`` until SIGTERM."""
    quiet_mlflow()
    prepare_sqlite(uri)
    from mlflow.server import constants

    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = uri
    os.environ[constants.REGISTRY_STORE_URI_ENV_VAR] = uri
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = _ARTIFACTS
    os.environ[constants.ARTIFACTS_DESTINATION_ENV_VAR] = artifact_root(uri).absolute().as_uri()
    os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"
    import uvicorn
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(uri, uri, _ARTIFACTS)
    # uvicorn raises the signal that ended it once more when it is done; being told to end is no failure.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=_STOP_SECONDS)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
