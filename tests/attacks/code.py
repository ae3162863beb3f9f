"""Attacks by code: what a coordinator pushes into a hospital, and what a hospital's own says."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.clientapp import ClientApp
from flwr.supercore.constant import TaskType
from flwr.supercore.task_identity import TaskIdentity

from client import round_handler
from client.runner import flower
from client.runner.executor import ForkingExecutor
from client.runner.pace import Pace
from client.settings import SiteSettings
from common.wire import reply_to_records
from tests.attacks.attack import Attack, Finding
from tests.attacks.hospital import BASE, Hospital, answer
from tests.client.rounds import make_plan
from tests.client.runner.supernode import make_site, runtime_api

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.client.runner.local_app"
RUN = "import runpy; runpy.run_module('client.runner', run_name='__main__')"
AS_FLOWER_DOES = f"""
from client.runner import flower
ours, replaced = flower._replace, ("install_from_fab", "get_load_client_app_fn")
flower._replace = lambda module, name, value: name in replaced or ours(module, name, value)
{RUN}
"""
_program = RUN


def pushed_code(folder: Path) -> Finding:
    """A true Flower bundle with a ClientApp of the coordinator's, given to a running site."""
    settings, mark = make_site(folder / "north"), folder / "the-bundle-ran"
    with runtime_api(settings, _hostile_bundle(mark)) as api:
        runner = _start(settings)
        try:
            api.send("train")
            reply = api.reply()
        finally:
            runner.terminate()
            runner.wait(timeout=15)
    assert reply is not None
    installed = list(settings.folder.rglob("evil.py"))
    won = mark.exists() or bool(installed)
    by = "the coordinator's code" if won else "the site's own code"
    return Finding(won, f"answered by {by}; {len(installed)} files installed")


def _hostile_bundle(mark: Path) -> bytes:
    pyproject = (
        '[project]\nname = "bundle"\nversion = "1.0.0"\ndescription = ""\nlicense = "MIT"\n'
        'dependencies = []\n[tool.flwr.app]\npublisher = "wardround"\n'
        '[tool.flwr.app.components]\nserverapp = "evil:app"\nclientapp = "evil:app"\n'
    )
    code = (
        "from flwr.clientapp import ClientApp\nfrom flwr.app import Message, RecordDict\n"
        f"open({str(mark)!r}, 'w').close()\napp = ClientApp()\n"
        "@app.train()\ndef train(message, context):\n"
        "    return Message(RecordDict(), reply_to=message)\n"
    )
    files = {"pyproject.toml": pyproject.encode(), "evil.py": code.encode()}
    bundle, _ = build_fab_from_files(files)
    return bundle


def _start(settings: SiteSettings) -> subprocess.Popen[bytes]:
    ready = settings.data / "ready"
    arguments = ["--folder", str(settings.folder), "--ready", str(ready), "--app", APP]
    environment = {**os.environ, "FLWR_HOME": str(settings.data / "flower")}
    command = [sys.executable, "-c", _program, *arguments]
    runner = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not ready.exists():
        assert runner.poll() is None, "the runner ended at start"
        time.sleep(0.05)
    return runner


def run_as_flower_does(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys.modules[__name__], "_program", AS_FLOWER_DOES)


def other_tasks(_folder: Path) -> Finding:
    """Flower's other task types, such as agents and whole ServerApps, offered to a site."""
    offered = {kind for kind in TaskType if kind is not TaskType.CLIENT_APP}
    executor = ForkingExecutor(_never, pace=Pace(busy=0, idle=0))  # type: ignore[arg-type]
    taken, _ = executor.get_eligible_capacity(offered)
    return Finding(bool(taken), f"{len(taken)} of {len(offered)} task types taken")


def _never(_spec: object) -> None:
    raise AssertionError


def take_every_task(patch: pytest.MonkeyPatch) -> None:
    def eligible(
        _self: ForkingExecutor, supported: set[TaskType], **_: object
    ) -> tuple[set[TaskType], set[str]]:
        return supported, set()

    patch.setattr(ForkingExecutor, "get_eligible_capacity", eligible)


NAME = "Jane-Planted-Doe"


def exception_text(_folder: Path) -> Finding:
    """An exception that names a patient; Flower sends an exception's text to the coordinator."""
    app = ClientApp()

    @app.train()
    def train(_message: Message, _context: Context) -> Message:
        raise ValueError(f"no such file: {NAME}.png")

    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    message = Message(RecordDict(), dst_node_id=1, message_type="train")
    message.metadata.__dict__["_message_id"] = "1"
    context = Context(1, 1, {}, RecordDict(), {})
    try:
        reply = flower.guarded(app)(message, context)
    except Exception as error:  # what Flower's run_clientapp does with it
        reply = Message(Error(code=2, reason=f"{type(error)}:<'{error}'>"), reply_to=message)
    sent = reply.error.reason
    return Finding(NAME in str(sent), f"the coordinator gets {str(sent)[:40]!r}")


def unguarded(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(flower, "guarded", lambda app: app)


def training_log(folder: Path) -> Finding:
    """Training fails with a patient's name in the error; logs and reply are searched for it."""
    hospital = Hospital.build(folder)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"cannot read {NAME}")

    with _Captured() as lines, pytest.MonkeyPatch.context() as patch:
        patch.setattr(round_handler, "train_private", fail)
        reply = hospital.ask(make_plan(base=BASE))
    leaving = repr(reply_to_records(reply))
    database = (hospital.settings.data / "cases.db").read_bytes()
    told = [NAME in text for text in ("\n".join(lines), leaving)] + [NAME.encode() in database]
    return Finding(any(told), f"{answer(reply)}; found in {sum(told)} of log, reply, database")


def log_the_error(patch: pytest.MonkeyPatch) -> None:
    """Every error counts as one of ours, whose text may be logged."""
    patch.setattr(round_handler, "WardroundError", Exception)
    patch.setattr(round_handler, "outward_code", lambda _code: "internal-error")
    patch.setattr(round_handler, "refusal_code", lambda _error: "internal-error")


class _Captured(logging.Handler):
    """Whatever is logged, at any level, by anybody."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(logging.Formatter().format(record))

    def __enter__(self) -> list[str]:
        logging.getLogger().addHandler(self)
        return self._lines

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)


def _row(
    name: str,
    what: str,
    defence: str,
    act: Callable[[Path], Finding],
    off: Callable[[pytest.MonkeyPatch], None],
) -> Attack:
    return Attack(name, "malicious coordinator", what, defence, act, off)


ATTACKS = (
    _row(
        "pushed-code",
        "a bundle with a ClientApp of the coordinator's",
        "the site's own flwr-clientapp",
        pushed_code,
        run_as_flower_does,
    ),
    _row(
        "other-task-types",
        "agents and ServerApps for a site to run",
        "ClientApp messages alone",
        other_tasks,
        take_every_task,
    ),
    Attack(
        "exception-text",
        "curious coordinator",
        "a patient's name in an exception",
        "errors leave as a constant",
        exception_text,
        unguarded,
    ),
    Attack(
        "training-log",
        "patient-data snooper",
        "a patient's name in a failing training",
        "types and codes, no texts",
        training_log,
        log_the_error,
    ),
)
