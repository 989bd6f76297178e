"""What holds for every request, whatever it asks."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive, Scope, Send

from epochal.server.metrics import Metrics
from epochal.server.middleware import RequestMiddleware


def test_a_request_that_a_stopping_server_waits_for_no_longer_is_answered() -> None:
    told: list[Message] = []

    async def hangs(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.sleep(60)

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        told.append(message)

    async def stopped() -> None:
        scope = {"type": "http", "method": "GET", "path": "/api/v1/jobs", "headers": []}
        request = asyncio.create_task(RequestMiddleware(hangs, Metrics())(scope, receive, send))
        await asyncio.sleep(0.01)
        request.cancel()  # as uvicorn does
        await request

    asyncio.run(stopped())
    assert [message.get("status") for message in told] == [503, None]
    assert b"the server is stopping" in told[1]["body"]
