"""`make fuzz`: at least 5,000 requests from the OpenAPI document; fails on the first kind of fault.

``python -m tests.fuzz [NUMBER] [SEED]``
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.fuzzing import fuzz, fuzzed_site

NUMBER = 5000


def main() -> int:
    """Ask, print what came of it, and return 1 if something was wrong."""
    os.environ["WARDROUND_SITE_ACCESS"] = "accounts"
    os.environ.setdefault("WARDROUND_SITE_INFERENCE", '{"runtime": "torch"}')
    number = int(sys.argv[1]) if len(sys.argv) > 1 else NUMBER
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 10**6
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, fuzzed_site(Path(folder)) as (url, key):
        tally = fuzz(url, key, number=number, first_seed=seed)
    seconds = time.monotonic() - begun
    sys.stdout.write(f"seed {seed}, {seconds:.0f} s: {tally.text()}\n")
    return 1 if tally.faults or tally.server_errors or tally.requests < number else 0


if __name__ == "__main__":
    sys.exit(main())
