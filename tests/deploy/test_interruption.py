"""A signal ends a command in order: what was started is stopped, one line says so, 130."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from deploy.interruption import CLOSING_LINE, interruptible

COMMAND = """
import time, typer
from deploy.interruption import interruptible

app = typer.Typer()

@app.command()
def up() -> None:
    with interruptible():
        try:
            print("up", flush=True)
            while True:
                time.sleep(0.05)
        finally:
            print("stopping", flush=True)
            time.sleep(1.0)  # a second signal comes now
            print("stopped", flush=True)

import deploy.cli
deploy.cli.app = app
deploy.cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_line_at_the_end_and_no_second_signal_cuts_the_stopping(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        said, complained = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert said == "stopped\n"
    assert complained.strip() == CLOSING_LINE
    assert process.returncode == 130


def test_a_block_that_takes_the_signal_goes_on_and_hears_the_next() -> None:
    before = signal.getsignal(signal.SIGTERM)
    heard = 0
    with interruptible() as hear_again:
        for _ in range(2):
            try:
                signal.raise_signal(signal.SIGTERM)
            except KeyboardInterrupt:
                heard += 1
                hear_again()
    assert heard == 2
    assert signal.getsignal(signal.SIGTERM) is before
