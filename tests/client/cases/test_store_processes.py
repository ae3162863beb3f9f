"""The case store under several processes, and under kill -9."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

from common.errors import InputRefused
from tests.client.cases.adding import add
from tests.client.stores import TASK, open_store


def _add_in_child(folder: str, url: str | None, seeds: list[int], results: object) -> None:
    store = open_store(Path(folder), database_url=url)
    kept = refused = 0
    for seed in seeds:
        try:
            add(store, seed, patient_id=f"P{seed % 5}")
            kept += 1
        except InputRefused as error:
            refused += error.code == "case-duplicate"
    results.put((kept, refused))  # type: ignore[attr-defined]


def test_processes_adding_the_same_images(tmp_path: Path, database_url: str) -> None:
    folder = tmp_path / "site"
    open_store(folder, database_url=database_url).close()
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    children = [
        context.Process(
            target=_add_in_child, args=(str(folder), database_url, list(range(40)), results)
        )
        for _ in range(2)
    ]
    for child in children:
        child.start()
    answers = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join(timeout=30)
    assert sum(kept for kept, _ in answers) == 40
    assert sum(refused for _, refused in answers) == 40
    store = open_store(folder, database_url=database_url)
    cases = store.training_cases(TASK) + store.holdout_cases(TASK)
    assert len(cases) == 40
    assert len({c.patient for c in cases}) == 5
    assert all(store.image_bytes(case) for case in cases)


_WRITER = """
import sys
from pathlib import Path
from tests.client.stores import TASK, open_store, picture
store = open_store(Path(sys.argv[1]), database_url=sys.argv[2] or None)
print("ready", flush=True)
for seed in range(100_000):
    case = store.add(picture(seed), task=TASK, patient_id=None, label="nv", source="test")
    print(case.id, flush=True)
"""


def _kill_a_writer(folder: Path, url: str, after: int) -> list[str]:
    """Return the ids that a writer had confirmed when kill -9 hit it."""
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(folder), url],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(after + 1)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    assert child.returncode == -signal.SIGKILL
    return [line.strip() for line in lines[1:] if len(line) == 33]


def test_kill_9_loses_no_confirmed_case_and_leaves_no_half_file(
    tmp_path: Path, database_url: str
) -> None:
    after = 5
    folder = tmp_path / "site"
    open_store(folder, database_url=database_url).close()
    confirmed = _kill_a_writer(folder, database_url, after)
    assert len(confirmed) >= after
    store = open_store(folder, database_url=database_url)
    for case_id in confirmed:
        assert store.image_bytes(store.get(case_id))
    cases = store.training_cases(TASK) + store.holdout_cases(TASK)
    assert {case.id for case in cases} >= set(confirmed)
    assert len(cases) <= len(confirmed) + 1
    assert all(store.image_bytes(case) for case in cases)  # checked against the digest
    files = [p for p in (folder / "data" / "images").rglob("*") if p.is_file()]
    whole = [p for p in files if not p.name.startswith(".writing-")]
    assert len(files) <= len(cases) + 1  # at most the one whose row did not come to be
    assert all(hashlib.sha256(p.read_bytes()).hexdigest() == p.name for p in whole)
    add(store, 10**6)  # the next writer goes on
