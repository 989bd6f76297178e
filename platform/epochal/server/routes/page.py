"""The page's files, from one folder, by their names alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

from epochal import server

router = APIRouter(include_in_schema=False)

_FOLDER = Path(server.__file__).parent / "page"
_INDEX = "index.html"


@router.get("/")
def index() -> Response:
    return _answered(_INDEX)


@router.get("/static/{name}")
@router.get("/{name}")
def file(name: str) -> Response:
    """The page names its files without a folder."""
    return _answered(name)


def _answered(name: str) -> Response:
    path = _files().get(name)
    if path is None:
        raise HTTPException(404)
    return FileResponse(path)


@cache
def _files() -> dict[str, Path]:
    """Looked up rather than joined: there is no way out of a table."""
    return {path.name: path for path in _FOLDER.iterdir() if path.is_file()}
