"""Whether a port of this machine is free, and who has it where it is not."""

from __future__ import annotations

import socket

import psutil

from epochal.errors import ConflictError
from epochal.urls import LOOPBACK


def is_free(port: int) -> bool:
    """Whether this process could listen on that port of loopback."""
    with socket.socket() as probe:
        # As servers bind: connections that have just ended keep nobody from the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def require_free(port: int, service: str, option: str) -> None:
    """
    Raises:
        ConflictError: the port cannot be had; it names who has it, and ``option`` takes another.
    """
    if not is_free(port):
        raise ConflictError(
            f"port {port}, where {service} would listen, is taken by {holder_of(port) or 'another program'}",
            f"end that program, or choose another port with {option}",
        )


def holder_of(port: int) -> str:
    """The program that listens on ``port``, with its pid; empty where the system does not say."""
    try:
        pids = [
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        ]
        process = psutil.Process(next(pid for pid in pids if pid))
        return f"{process.name()} (pid {process.pid}: {' '.join(process.cmdline())[:120]})"
    except (psutil.Error, StopIteration):
        return ""
