"""`modeguard serve`: the server, in this process's place."""

import os
import sys
from typing import Annotated

import typer

from modeguard.offline.cli.options import BundleOption, TrustOption

__all__ = ["SERVER", "serve"]

SERVER = [sys.executable, "-P", "-m", "modeguard.service"]
"""The words that start the server. With -P a directory "modeguard" where the user stands is not taken for ours."""


def serve(
    bundle: BundleOption,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 for any free one.")] = None,
    trust_program: TrustOption = None,
) -> None:
    """Serve a bundle over HTTP. The server's own settings are MODEGUARD_* variables, see docs/operations.md."""
    settings = {"MODEGUARD_BUNDLE": str(bundle)}
    if host is not None:
        settings["MODEGUARD_HOST"] = host
    if port is not None:
        settings["MODEGUARD_PORT"] = str(port)
    if trust_program:
        settings["MODEGUARD_TRUSTED_PROGRAMS"] = ",".join(trust_program)
    # PYTHONPATH stays as it is: it may hold the user's own classifiers, and the server is found where this code was
    os.execve(SERVER[0], SERVER, os.environ | settings)  # noqa: S606 - the server needs no shell
