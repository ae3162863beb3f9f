"""Fixtures for all tests. Hypothesis has no deadline: a busy machine is no fault of the code."""

from __future__ import annotations

import json
import os
import signal

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

# Two workers on two cores: with a thread a core each, torch spends half of its time waiting for
# its own threads. Set before anything imports it; what the tests start inherits it.
for pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(pool, "1")

# Making a network's ONNX graph takes seconds of both cores; the tests that are about it say so.
os.environ.setdefault("WARDROUND_SITE_INFERENCE", json.dumps({"runtime": "torch"}))

# Most tests are about what the service does, not about who may ask it.
os.environ.setdefault("WARDROUND_SITE_ACCESS", "open")

settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
