"""A parent that forks again: real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from client.standby.parent import FAILED_STARTS, FIRST_PAUSE, LONG_LIFE, LONGEST_PAUSE, Lives

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no parent elsewhere")

PATIENCE = 60.0
CHILD = """
import os, signal, sys, time
from pathlib import Path
import client.standby
import random
from client.standby.parent import fork_again_when_killed
{before}
fork_again_when_killed()
lives = Path(sys.argv[1])
number = len(list(lives.iterdir()))
(lives / f"{{number}}.new").write_text(f"{{os.getpid()}} {{random.random()}}")
(lives / f"{{number}}.new").rename(lives / f"{{number}}")
{life}
"""


@contextmanager
def parent(
    lives: Path, *, life: str = "time.sleep(600)", before: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    lives.mkdir()
    code = CHILD.format(life=life, before=before)
    process = subprocess.Popen([sys.executable, "-c", code, str(lives)], start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_life(lives: Path, number: int) -> tuple[int, float]:
    ends = time.monotonic() + PATIENCE
    while not (lives / str(number)).exists():
        assert time.monotonic() < ends, f"life {number} did not begin"
        time.sleep(0.01)
    pid, drawn = (lives / str(number)).read_text().split()
    return int(pid), float(drawn)


def wait_gone(pid: int) -> None:
    ends = time.monotonic() + PATIENCE
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < ends, f"{pid} lives on"
        time.sleep(0.01)


def test_a_killed_child_is_followed_by_another_with_randomness_of_its_own(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    with parent(lives) as process:
        first, drawn = wait_for_life(lives, 0)
        os.kill(first, signal.SIGKILL)
        second, drawn_again = wait_for_life(lives, 1)
        assert len({process.pid, first, second}) == 3
        assert drawn != drawn_again
        assert process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_child_kindly_and_then_the_parent(
    tmp_path: Path, number: signal.Signals
) -> None:
    lives = tmp_path / "lives"
    life = (
        "signal.signal(signal.SIGTERM, lambda *_: (Path(sys.argv[1] + '.ended').touch(),"
        " sys.exit(0)))\ntime.sleep(600)"
    )
    with parent(lives, life=life) as process:
        child, _ = wait_for_life(lives, 0)
        time.sleep(0.2)  # the child's handler
        os.killpg(process.pid, number)  # as a terminal does: to both
        process.send_signal(number)
        assert process.wait(PATIENCE) in (0, -number)
        wait_gone(child)
        assert (tmp_path / "lives.ended").exists()
        assert len(list(lives.iterdir())) == 1


def test_a_child_that_ends_by_itself_is_not_followed(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    with parent(lives, life="sys.exit(2)") as process:
        assert process.wait(PATIENCE) == 2
    assert len(list(lives.iterdir())) == 1


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    with parent(lives) as process:
        child, _ = wait_for_life(lives, 0)
        os.kill(process.pid, signal.SIGKILL)
        wait_gone(child)


def test_where_a_fork_is_not_safe_there_is_no_parent(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    other = (
        "import threading\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    )
    with parent(lives, before=other) as process:
        assert wait_for_life(lives, 0)[0] == process.pid


def test_a_service_that_dies_at_each_start_is_left_to_whoever_started_the_parent(
    tmp_path: Path,
) -> None:
    lives = tmp_path / "lives"
    with parent(lives, life="os.kill(os.getpid(), signal.SIGKILL)") as process:
        assert process.wait(PATIENCE) == -signal.SIGKILL
    assert len(list(lives.iterdir())) == FAILED_STARTS


def test_a_service_that_answered_is_followed_however_often_and_soon_it_is_killed(
    tmp_path: Path,
) -> None:
    lives, often = tmp_path / "lives", FAILED_STARTS + 2
    life = (
        "from client.forking import ANSWERS\n"
        f"if number % {FAILED_STARTS}: ANSWERS.give()\n"  # one in a row that did not counts little
        f"if number == {often}: time.sleep(600)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    with parent(lives, life=life) as process:
        wait_for_life(lives, often)
        assert process.poll() is None


def test_the_pause_grows_while_children_live_but_shortly() -> None:
    lives = Lives()
    for _ in range(20):
        lives = lives.after(1.0, answered=True)
    assert lives.pause == LONGEST_PAUSE
    assert lives.after(LONG_LIFE, answered=True).pause == FIRST_PAUSE


def test_only_short_lives_without_an_answer_count_and_only_in_a_row() -> None:
    lives = Lives()
    for life, answered, cannot in (
        *((1.0, False, False), (1.0, False, False), (1.0, True, False)),
        *((1.0, False, False), (1.0, False, False), (LONG_LIFE, False, False)),
        *((1.0, False, False), (1.0, False, False), (1.0, False, True)),
    ):
        lives = lives.after(life, answered=answered)
        assert lives.cannot_start == cannot
