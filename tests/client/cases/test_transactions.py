"""Writing transactions of a site's database."""

from __future__ import annotations

import threading

from sqlalchemy import text

from client.cases.transactions import Transactions
from common.database import open_database


def test_writers_go_one_at_a_time(database_url: str) -> None:
    engines = [open_database(database_url) for _ in range(2)]
    inside, over = threading.Event(), threading.Event()

    def second() -> None:
        with Transactions(engines[1], 7).writing() as session:
            session.execute(text("SELECT 1"))
            inside.set()
        over.set()

    with Transactions(engines[0], 7).writing() as session:
        session.execute(text("SELECT 1"))
        thread = threading.Thread(target=second)
        thread.start()
        assert not inside.wait(0.5)
    assert over.wait(30)
    thread.join()
    for engine in engines:
        engine.dispose()
