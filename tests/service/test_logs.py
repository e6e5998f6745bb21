"""A log line is one line, whatever a client put into it, and shows no values of variables."""

import json
import logging
from typing import Literal

import pytest
import structlog

from modeguard.service.logs import configure_logs


def fail_with(secret_argument: str) -> None:
    raise RuntimeError(f"fault {len(secret_argument)}")


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_our_lines_and_uvicorns_look_alike(
    log_format: Literal["json", "console"], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(log_format, "info")
    structlog.get_logger("service").info("request", path="/a\n2026 [info] forged")
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
    structlog.get_logger("service").debug("too quiet")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert (out, len(lines)) == ("", 2)
    assert "Started server process [7]" in lines[1]
    if log_format == "json":
        assert [json.loads(line)["level"] for line in lines] == ["info", "info"]
        assert json.loads(lines[0])["path"] == "/a\n2026 [info] forged"


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_exception_is_shown_without_the_values_of_variables(
    log_format: Literal["json", "console"], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(log_format, "info")
    try:
        fail_with("hush" * 3)
    except RuntimeError:
        structlog.get_logger("service").exception("unforeseen error")
    said = capsys.readouterr().err
    assert "fault 12" in said
    assert "hushhush" not in said
    if log_format == "json":
        assert len(said.splitlines()) == 1
