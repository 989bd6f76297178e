"""A small service for the supervisor's tests: answers on a port, and does what it is told on its way.

python small_service.py PORT [--deaf] [--child] [--order FILE NAME] [--agent NAME PID_FILE] [--fail CODE]
    [--lazy SECONDS]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Answer(BaseHTTPRequestHandler):
    agent = ("", os.devnull)

    def do_GET(self) -> None:
        asked = self.headers.get("Authorization", "")
        name, pid_file = self.agent
        agent = {"name": name, "alive": True, "detail": {"pid": int(Path(pid_file).read_text() or 0)}}
        body = json.dumps({"agents": [agent], "authorization": asked}).encode()
        self.send_response(200 if self.path != "/sick" else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--order", nargs=2)
    parser.add_argument("--agent", nargs=2, default=Answer.agent)
    parser.add_argument("--fail", type=int)
    parser.add_argument("--lazy", type=float, default=0.0)
    options = parser.parse_args()
    print("started", flush=True)
    if options.fail is not None:
        print("cannot go on", flush=True)
        sys.exit(options.fail)
    time.sleep(options.lazy)
    Answer.agent = (options.agent[0], options.agent[1])
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Answer)
    if options.child:
        subprocess.Popen(["sleep", "300"])

    def end(number: int, frame: object) -> None:
        if options.deaf:
            return
        if options.order:
            with Path(options.order[0]).open("a") as file:
                file.write(f"{options.order[1]}\n")
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    server.serve_forever()


if __name__ == "__main__":
    main()
