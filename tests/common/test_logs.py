"""Log lines as JSON: one line an event, whatever stands in it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import datetime

import pytest

from common.logs import JsonFormatter, configure_logging


@pytest.mark.parametrize(
    "message", ["round-ended round=3", 'a "quote"\nand a break\r\x1b[31m', "é"]
)
def test_a_record_is_one_line_of_json(message: str) -> None:
    record = logging.LogRecord("server.app", logging.INFO, "f", 1, "%s", (message,), None)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    read = json.loads(line)
    assert (read["message"], read["level"], read["logger"]) == (message, "INFO", "server.app")
    assert datetime.fromisoformat(read["time"]).utcoffset() is not None


def test_a_traceback_stays_in_its_line() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed", (), sys.exc_info())
    assert "ValueError: why" in json.loads(JsonFormatter().format(record))["exception"]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_process_logs_in_the_format_that_is_set(log_format: str) -> None:
    code = (
        "import logging; from common.logs import configure_logging as c;"
        f"c({log_format!r}, levels={{'quiet': logging.ERROR}});"
        "logging.getLogger('quiet').warning('no'); logging.getLogger('loud').info('event=yes')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert line.endswith("loud event=yes") or json.loads(line)["message"] == "event=yes"
    assert line.startswith("{") == (log_format == "json")


def test_the_coordinator_and_the_site_have_the_setting() -> None:
    from client.settings import SiteSettings
    from server.settings import CoordinatorSettings

    for settings in (SiteSettings, CoordinatorSettings):
        assert settings.model_fields["log_format"].default == "text"
    assert callable(configure_logging)
