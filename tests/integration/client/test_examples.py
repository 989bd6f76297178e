"""``use-from-python.md`` works as it is written: its blocks are run in order, against a real server."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from restartable_server import PlayedAgent, RestartableServer

PAGE = Path(__file__).parents[3] / "platform" / "docs" / "how-to" / "use-from-python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_page_s_blocks_run_in_order(
    own_server: RestartableServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EPOCHAL_SERVER", own_server.url)
    monkeypatch.setenv("EPOCHAL_TOKEN", own_server.token)
    agent = PlayedAgent(own_server)
    agent.appear()
    names: dict[str, object] = {}
    for block in BLOCKS:
        if "client.wait(" in block:
            identity = names["submitted"].id  # type: ignore[attr-defined]
            threading.Timer(0.3, agent.carry, [identity, "hello from rank 0\n"]).start()
        exec(compile(block, str(PAGE), "exec"), names)
    told = capsys.readouterr().out
    for line in ("train.optimizer.lr", "QUEUED", "SUCCEEDED", "hello from rank 0", "played True 1", "'anna'"):
        assert line in told
