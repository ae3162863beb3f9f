"""The demo as a user runs it: a whole federation, two releases, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deploy.demo.report import DemoReport

pytestmark = pytest.mark.journey

# More epsilon than anybody should spend: few rounds must do here, and not by luck.
ARGUMENTS = ("demo", "--rounds", "3", "--epsilon", "40", "--json")


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "deploy.cli", *ARGUMENTS, "--folder", str(folder)]


def left_over(folder: Path) -> list[str]:
    """Command lines of processes that work in a folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "pid"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(folder) in line and process.info["pid"] != os.getpid():
            found.append(line)
    return found


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.2)


@pytest.mark.timeout(600)
def test_demo_releases_twice_and_swaps_without_a_failed_request(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(command(folder), capture_output=True, text=True, check=False, timeout=550)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    report = DemoReport.model_validate(json.loads(done.stdout))
    assert len(report.sites) >= 3
    assert report.v2_refused_by == ()
    for site in report.sites:
        assert site.model_version == 2
        assert site.failed_during_swap == 0
        assert site.answered_during_swap > 0
        assert site.epsilon_prv is not None
        assert site.epsilon_rdp is not None
        assert 0 < site.epsilon_prv <= site.epsilon_rdp <= 40
    assert len({site.model_digest for site in report.sites}) == 1
    assert report.v1.macro_auroc is not None
    assert report.v1.macro_auroc > 0.6
    assert left_over(folder) == []


@pytest.mark.timeout(300)
def test_interrupted_demo_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    process = subprocess.Popen(
        command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: any("client.runner" in line for line in left_over(folder)), 120)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
    wait_until(lambda: left_over(folder) == [], 10)
