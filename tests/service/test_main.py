"""The listening socket."""

import socket

import pytest

from modeguard.service.__main__ import _listen


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_the_listener_says_that_it_is_tcp(host: str, family: socket.AddressFamily) -> None:
    """Only then does asyncio send small answers at once; otherwise each waits some 40 ms for the one before."""
    try:
        listener = _listen(host, 0)
    except OSError:
        pytest.skip(f"no {host} here")
    with listener:
        assert (listener.family, listener.proto) == (family, socket.IPPROTO_TCP)
        with socket.create_connection(listener.getsockname()[:2]) as client, listener.accept()[0] as accepted:
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"
