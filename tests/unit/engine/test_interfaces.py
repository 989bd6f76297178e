"""The network interface over which workers connect to each other."""

from __future__ import annotations

import os

import psutil
import pytest

from epochal.engine import process


def test_it_is_that_of_the_node_unless_the_nodes_variables_name_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of a cluster spec has `env: {NCCL_SOCKET_IFNAME: ...}` for a network of its own."""
    loopback = next(
        name for name, found in psutil.net_if_addrs().items() if "127.0.0.1" in {one.address for one in found}
    )
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")  # so that what is set below is undone
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "fast0")
    process.connect_from("127.0.0.1")
    assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"]) == (loopback, "fast0")


def test_an_address_that_no_interface_has_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    process.connect_from("192.0.2.7")
    assert not {"GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"} & os.environ.keys()
