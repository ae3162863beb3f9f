"""The runner as a real process, against a SuperNode's real Runtime API."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from flwr.supercore.constant import TaskType

from client.settings import SiteSettings
from tests.client.runner.supernode import RuntimeApi, make_site, runtime_api

ROOT = Path(__file__).resolve().parents[3]
APP = "tests.client.runner.local_app"


def hostile_bundle(mark: Path) -> bytes:
    """A well-formed-looking bundle whose code leaves a mark wherever it is unpacked or run."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(
            "pyproject.toml",
            '[project]\nname = "wardround-bundle"\nversion = "1.0.0"\n'
            '[tool.flwr.app]\npublisher = "wardround"\n'
            '[tool.flwr.app.components]\nserverapp = "evil:app"\nclientapp = "evil:app"\n',
        )
        archive.writestr("evil.py", f"open({str(mark)!r}, 'w')\n")
    return buffer.getvalue()


def start_runner(settings: SiteSettings) -> subprocess.Popen[bytes]:
    ready = settings.data / "ready"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "client.runner", "--folder", str(settings.folder)]
    environment = {**os.environ, "FLWR_HOME": str(settings.data / "flower")}
    runner = subprocess.Popen(
        [*command, "--ready", str(ready), "--app", APP], cwd=ROOT, env=environment
    )
    while not ready.exists():
        assert runner.poll() is None, "the runner ended at start"
        time.sleep(0.05)
    return runner


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> SiteSettings:
    return make_site(tmp_path_factory.mktemp("runner") / "north")


@pytest.fixture(scope="module")
def mark(settings: SiteSettings) -> Path:
    return settings.folder / "the-bundle-ran"


@pytest.fixture(scope="module")
def api(settings: SiteSettings, mark: Path) -> Iterator[RuntimeApi]:
    with runtime_api(settings, hostile_bundle(mark)) as api:
        yield api


@pytest.fixture(scope="module")
def runner(settings: SiteSettings, api: RuntimeApi) -> Iterator[subprocess.Popen[bytes]]:
    runner = start_runner(settings)
    yield runner
    runner.terminate()
    assert runner.wait(timeout=15) == 0


def ask(api: RuntimeApi) -> dict[str, object]:
    api.send("train")
    reply = api.reply()
    assert reply is not None
    assert not reply.has_error()
    return dict(reply.content["answer"])


def test_each_message_has_a_child_and_noise_of_its_own(
    api: RuntimeApi, runner: subprocess.Popen[bytes]
) -> None:
    first, second = ask(api), ask(api)
    assert first["parent"] == second["parent"] == runner.pid
    assert first["pid"] != second["pid"]
    assert first["noise"] != second["noise"], "forked children drew the same privacy noise"


def test_the_pushed_bundle_is_neither_unpacked_nor_run(
    api: RuntimeApi, runner: subprocess.Popen[bytes], settings: SiteSettings, mark: Path
) -> None:
    ask(api)
    assert not mark.exists()
    assert not list(settings.folder.rglob("evil.py"))
    assert not (settings.data / "flower" / "apps").exists()


def test_an_exceptions_text_stays_at_the_site(
    api: RuntimeApi, runner: subprocess.Popen[bytes]
) -> None:
    api.send("evaluate")
    reply = api.reply()
    assert reply is not None
    assert reply.has_error()
    assert reply.error.reason == "site-error"


def test_other_task_types_are_not_taken(api: RuntimeApi, runner: subprocess.Popen[bytes]) -> None:
    api.offer(TaskType.AGENT_APP)
    ask(api)  # taken after it, had it been eligible
    assert api.pending() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="death signals are Linux's")
def test_a_child_at_work_dies_with_a_killed_runner(tmp_path: Path) -> None:
    settings = make_site(tmp_path / "north")
    with runtime_api(settings) as api:
        runner = start_runner(settings)
        child = busy_child(api, runner, settings)
        runner.kill()
        runner.wait(timeout=15)
        assert gone(child)


def test_a_wrong_secret_gets_no_message(
    api: RuntimeApi, settings: SiteSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """A plain client without torch is enough to show what the SuperNode answers."""
    script = (
        "from client.runner import flower, executor, pace\n"
        "ours = executor.ForkingExecutor(print, pace=pace.Pace(busy=0.01, idle=0.01))\n"
        f"flower.serve(ours, runtime_address='127.0.0.1:{settings.runtime_port}', secret=b'guess')"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60, check=False)
    assert "SuperExec authentication failed" in caplog.text


def test_a_child_at_work_is_stopped_with_its_runner(
    api: RuntimeApi, runner: subprocess.Popen[bytes], settings: SiteSettings
) -> None:
    """The module's last test: it ends the shared runner, as an orderly shutdown does."""
    child = busy_child(api, runner, settings)
    runner.terminate()
    assert runner.wait(timeout=15) == 0
    assert gone(child)


def busy_child(
    api: RuntimeApi, runner: subprocess.Popen[bytes], settings: SiteSettings
) -> psutil.Process:
    api.send("query")
    busy = settings.folder / "busy"
    deadline = time.monotonic() + 30
    while not busy.exists() or not busy.read_text():
        assert runner.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return psutil.Process(int(busy.read_text()))


def gone(process: psutil.Process) -> bool:
    _, alive = psutil.wait_procs([process], timeout=5)
    return all(p.status() == psutil.STATUS_ZOMBIE for p in alive)
