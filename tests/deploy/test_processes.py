import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from common.errors import ProcessError
from deploy import processes
from deploy.processes import ProcessSpec, Supervisor

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PATH": os.environ["PATH"]}
linux = pytest.mark.skipif(sys.platform != "linux", reason="death signals are Linux's")


def spec(folder: Path, name: str, code: str, *, ready: bool = False) -> ProcessSpec:
    flag = folder / f"{name}.ready"
    return ProcessSpec(
        name=name,
        command=[sys.executable, "-u", "-c", textwrap.dedent(code), str(flag)],
        environment=ENVIRONMENT,
        log=folder / "logs" / f"{name}.log",
        ready_file=flag if ready else None,
    )


SLEEPER = "import sys, time, pathlib; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
STUBBORN = """
    import signal, sys, time, pathlib
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pathlib.Path(sys.argv[1]).touch()
    time.sleep(600)
"""
PARENT = """
    import subprocess, sys, time, pathlib
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pathlib.Path(sys.argv[1]).write_text(str(child.pid))
    time.sleep(600)
"""


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as supervisor:
        yield supervisor


def dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_dead(pid: int, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not dead(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return dead(pid)


def test_processes_start_become_ready_and_stop(tmp_path: Path, supervisor: Supervisor) -> None:
    pids = [supervisor.start(spec(tmp_path, n, SLEEPER, ready=True)) for n in ("a", "b")]
    supervisor.wait_ready(timeout=20)
    assert supervisor.states() == {"a": "running", "b": "running"}
    supervisor.stop([["b"]])
    assert supervisor.states() == {"a": "stopped", "b": "stopped"}
    assert all(dead(pid) for pid in pids)
    supervisor.stop()


def test_a_process_that_dies_at_start_is_named_with_its_log(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    supervisor.start(spec(tmp_path, "good", SLEEPER, ready=True))
    supervisor.start(spec(tmp_path, "bad", "import sys; sys.exit('no such key')", ready=True))
    with pytest.raises(ProcessError) as caught:
        supervisor.wait_ready(timeout=20)
    assert caught.value.code == "process-died"
    assert "bad ended (exit code 1)" in caught.value.line()
    assert "no such key" in caught.value.line()
    assert str(tmp_path / "logs" / "bad.log") in caught.value.line()
    assert supervisor.states()["bad"] == "failed"


def test_a_program_that_does_not_exist_is_reported(tmp_path: Path, supervisor: Supervisor) -> None:
    flag = tmp_path / "never"
    absent = ProcessSpec(
        "x", ["/no/such/program"], ENVIRONMENT, tmp_path / "x.log", ready_file=flag
    )
    supervisor.start(absent)
    with pytest.raises(ProcessError, match="No such file"):
        supervisor.wait_ready(timeout=20)


def test_a_process_that_never_gets_ready_is_named(tmp_path: Path, supervisor: Supervisor) -> None:
    supervisor.start(spec(tmp_path, "slow", "import time; time.sleep(600)", ready=True))
    with pytest.raises(ProcessError) as caught:
        supervisor.wait_ready(timeout=0.3)
    assert caught.value.code == "process-not-ready"


def test_a_stubborn_process_is_killed(tmp_path: Path, supervisor: Supervisor) -> None:
    pid = supervisor.start(spec(tmp_path, "stubborn", STUBBORN, ready=True))
    supervisor.wait_ready(timeout=20)
    begin = time.monotonic()
    supervisor.stop(grace=0.3)
    assert time.monotonic() - begin < 5
    assert dead(pid)


def test_a_killed_process_takes_its_children_and_can_be_restarted(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    parent = spec(tmp_path, "parent", PARENT, ready=True)
    first = supervisor.start(parent)
    supervisor.wait_ready(timeout=20)
    while not (text := (tmp_path / "parent.ready").read_text()):
        time.sleep(0.01)
    supervisor.kill("parent")
    assert wait_dead(int(text))
    supervisor.check()  # a process that was killed on purpose is no failure
    assert supervisor.restart("parent") != first
    supervisor.wait_ready(timeout=20)
    with pytest.raises(ProcessError):
        supervisor.start(parent)


LAUNCHER = """
    import signal, sys, threading
    from pathlib import Path
    from deploy.processes import Supervisor
    from tests.deploy.test_processes import SLEEPER, STUBBORN, spec

    folder = Path(sys.argv[1])
    def interrupt(*_): raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    def run():
        pids = [supervisor.start(spec(folder, n, code, ready=True))
                for n, code in (("a", SLEEPER), ("b", STUBBORN))]
        supervisor.wait_ready(timeout=60)
        (folder / "pids.part").write_text(" ".join(map(str, pids)))
        (folder / "pids.part").rename(folder / "pids")
    with Supervisor() as supervisor:
        # From a thread that ends: the kernel's death signal must not follow it.
        thread = threading.Thread(target=run); thread.start(); thread.join()
        signal.pause()
"""


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_survives_its_launcher(tmp_path: Path, number: signal.Signals) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LAUNCHER), str(tmp_path)], cwd=ROOT
    )
    while not (tmp_path / "pids").exists():
        assert launcher.poll() is None
        time.sleep(0.02)
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert not any(dead(pid) for pid in pids)
    launcher.send_signal(number)
    launcher.wait(timeout=20)
    assert all(wait_dead(pid) for pid in pids)


def test_what_is_kept_alive_is_started_again_until_it_ends_too_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "FIRST_RESTART_SECONDS", 0.01)
    monkeypatch.setattr(processes, "RESTARTS", 3)
    with Supervisor() as supervisor:
        sleeper = ProcessSpec("p", ["sleep", "60"], ENVIRONMENT, tmp_path / "p.log")
        first = supervisor.start(sleeper)
        supervisor.keep_alive()
        for _ in range(3):
            pid = supervisor.pid("p")
            os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 30
            while supervisor.pid("p") == pid and time.monotonic() < deadline:
                time.sleep(0.02)
            supervisor.check()
            assert supervisor.states()["p"] == "running"
        assert supervisor.pid("p") != first
        os.kill(supervisor.pid("p"), signal.SIGKILL)
        time.sleep(0.5)
        assert supervisor.states()["p"] == "failed"
        with pytest.raises(ProcessError):
            supervisor.check()


def test_what_was_told_to_stop_is_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "FIRST_RESTART_SECONDS", 0.01)
    with Supervisor() as supervisor:
        supervisor.start(ProcessSpec("p", ["sleep", "60"], ENVIRONMENT, tmp_path / "p.log"))
        supervisor.keep_alive()
        supervisor.kill("p")
        time.sleep(0.5)
        assert supervisor.states()["p"] == "stopped"
