"""Code packages by digest: is it there, fetch it, send it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response, StreamingResponse

from epochal import names
from epochal.errors import UnreachableError
from epochal.redaction import said
from epochal.server.auth import CodeReader, Submitter
from epochal.server.openapi import Answers, answers
from epochal.server.services import Deps

router = APIRouter(tags=["code"])

Digest = Annotated[
    str, Path(pattern=names.DIGEST, description="SHA-256 of the content, as lower-case hexadecimal digits.")
]
_ZIP = "application/zip"
_MEMORY = 2**20
_KEEP_SECONDS = 120.0
"""For the largest package, checked and sent on to an object store."""
_PACKAGE: Answers = {200: {"content": {_ZIP: {"schema": {"type": "string", "format": "binary"}}}}}
_SENT = {"requestBody": {"required": True, "content": {_ZIP: {"schema": {"type": "string", "format": "binary"}}}}}


@router.head("/code/{digest}", responses=answers(None, 404), response_class=Response)
async def is_there(digest: Digest, _who: CodeReader, services: Deps) -> Response:
    """Whether the server has this package."""
    size = await services.storage_threads.run(partial(services.code.size, digest))
    return Response(headers={"Content-Length": str(size)}, media_type=_ZIP)


@router.get("/code/{digest}", responses={**answers(None, 404), **_PACKAGE}, response_class=Response)
async def fetch(digest: Digest, _who: CodeReader, services: Deps) -> Response:
    """The package, a zip file."""
    size = await services.storage_threads.run(partial(services.code.size, digest))
    blocks = services.code.read(digest)

    async def sent() -> AsyncIterator[bytes]:
        while block := await services.storage_threads.run(partial(next, blocks, b"")):
            yield block

    return StreamingResponse(sent(), headers={"Content-Length": str(size)}, media_type=_ZIP)


@router.put(
    "/code/{digest}",
    status_code=201,
    responses={**answers(None, 413, status=201), 200: {"description": "It was there already."}},
    response_class=Response,
    openapi_extra=_SENT,
)
async def send(digest: Digest, request: Request, _who: Submitter, services: Deps) -> Response:
    """Keep a package: a zip file of plain files, checked entry by entry and against its digest."""
    with tempfile.SpooledTemporaryFile(_MEMORY) as package:
        try:
            async for part in request.stream():
                package.write(part)
        except OSError as error:
            hint = "is the disk with the server's temporary folder full?"
            raise UnreachableError(f"the server cannot take the package: {said(error)}", hint) from error
        if await services.storage_threads.run(partial(services.code.holds, digest)):
            return Response(status_code=200)
        await services.storage_threads.run(partial(services.code.keep, digest, package), _KEEP_SECONDS)
    return Response(status_code=201)
