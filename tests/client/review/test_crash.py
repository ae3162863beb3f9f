"""kill -9 while cases are judged: what was said to be confirmed is, with who said so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from sqlalchemy import text

from client.review.settings import ReviewSettings
from tests.client.stores import TASK, open_store

ROOT = Path(__file__).parents[3]

_CHILD = """
import sys
from datetime import UTC, datetime
from pathlib import Path

from client.answers.log import AnswerLog
from client.review.settings import ReviewSettings
from common.database import open_database
from tests.client.answers.answered import answer
from tests.client.stores import TASK, make_site, open_store, picture

folder, url = Path(sys.argv[1]), sys.argv[2]
store = open_store(folder, database_url=url, review=ReviewSettings(readers=2))
answers = AnswerLog(open_database(url))
answers.start()
seed = 0
while True:
    seed += 1
    answers.record(answer(request_id=str(seed), answered_at=datetime.now(UTC)))
    case = store.add(picture(seed), task=TASK, patient_id=None, label="nv", source="http",
                     reader="ada")
    assert case.status == "waiting"
    done = store.confirm(case.id, "nv", classes=("nv", "mel"), reader="ben")
    print(done.id if done.status == "confirmed" else "broken", flush=True)
"""


def test_kill_9_while_readers_agree(tmp_path: Path, database_url: str) -> None:
    folder = tmp_path / "site"
    open_store(folder, database_url=database_url).close()
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(folder), database_url],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(12)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    confirmed = {line.strip() for line in lines if len(line) == 33}
    assert len(confirmed) >= 12
    store = open_store(folder, database_url=database_url, review=ReviewSettings(readers=2))
    cases = store.training_cases(TASK) + store.holdout_cases(TASK)
    assert {case.id for case in cases} >= confirmed
    assert all(store.image_bytes(case) for case in cases)
    with store.transactions.reading() as session:
        # Whoever is confirmed was so by two people; whoever has two opinions is confirmed.
        twice = text("SELECT case_id FROM opinions GROUP BY case_id HAVING count(*) = 2")
        assert set(session.scalars(twice)) == {case.id for case in cases}
        states = text("SELECT case_id FROM case_reviews WHERE state = 'confirmed' AND opinions = 2")
        assert set(session.scalars(states)) == {case.id for case in cases}
        changes = text("SELECT case_id FROM label_changes WHERE label = 'nv'")
        assert set(session.scalars(changes)) == {case.id for case in cases}
    store.close()
