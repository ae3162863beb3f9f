"""Fixtures for all tests. Hypothesis has no deadline: a busy machine is no fault of the code."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

from tests.databases import (  # noqa: F401 - pytest finds fixtures by name
    database_url,
    postgres_cluster,
    postgres_database_url,
    sqlite_database_url,
)

# A shell that puts the tests in the background has them ignore Ctrl-C, and all that they start
# inherits that: the tests that interrupt a process could not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file on one worker, and all that start a federation on the same one.

    Module fixtures are dear, and two federations that look for free ports at once would find the
    same ones.
    """
    for item in items:
        file = item.path.relative_to(item.config.rootpath).as_posix()
        federation = file.startswith("tests/journeys/") or file == "tests/deploy/test_exposure.py"
        item.add_marker(pytest.mark.xdist_group("federation" if federation else file))
