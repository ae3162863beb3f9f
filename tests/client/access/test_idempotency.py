"""A request that is sent again is answered as the first time, and never done twice at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import anyio
import httpx
import pytest
from pydantic import BaseModel
from sqlalchemy import Engine, text

from client.access.idempotency import KEPT_FOR, Idempotency, InProgress, Replayed
from client.access.roles import Role
from client.cases.store import MIGRATIONS
from common.database import migrate, open_database
from common.errors import InputRefused
from common.moments import utc_now
from tests.client.access.conftest import GuardedSite, TakesNothing
from tests.client.serving import picture

SECRET = bytes(32)


class Answer(BaseModel):
    number: int


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = open_database(database_url)
    migrate(opened, MIGRATIONS)
    yield opened
    opened.dispose()


def ask(
    kept: Idempotency, number: int, *, key: str = "k", part: bytes = b"", caller: str = "anna"
) -> int | None:
    """Return the number that was answered before, None if this one is."""

    async def run() -> int | None:
        try:
            async with kept.once(caller=caller, route="r", key=key, parts=[part]) as answering:
                answering.keep(Answer(number=number), status=200)
        except Replayed as known:
            return Answer.model_validate_json(known.answer.body).number
        return None

    return anyio.run(run)


def fail(kept: Idempotency) -> None:
    async def run() -> None:
        async with kept.once(caller="anna", route="r", key="k", parts=[b""]):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        anyio.run(run)


def test_the_first_answer_is_the_answer_for_a_day(engine: Engine) -> None:
    kept = Idempotency(engine, SECRET)
    assert ask(kept, 1) is None
    assert ask(kept, 2) == 1
    assert ask(Idempotency(engine, SECRET), 3) == 1, "a restart forgets nothing"
    assert ask(kept, 4, caller="bert") is None, "another caller's key is another key"
    with pytest.raises(InputRefused) as refused:
        ask(kept, 5, part=b"other")
    assert refused.value.code == "idempotency-key-reused"
    kept._clock = lambda: utc_now() + KEPT_FOR + timedelta(seconds=1)
    assert ask(kept, 6, part=b"other") is None


def test_a_failure_is_not_kept(engine: Engine) -> None:
    kept = Idempotency(engine, SECRET)
    fail(kept)
    assert ask(kept, 1) is None


def test_the_same_key_at_once_is_refused_and_a_dead_process_frees_it(engine: Engine) -> None:
    kept = Idempotency(engine, SECRET)
    begun, go_on = threading.Event(), threading.Event()

    async def slow() -> None:
        async with kept.once(caller="anna", route="r", key="k", parts=[b""]) as answering:
            begun.set()
            await anyio.to_thread.run_sync(go_on.wait)
            answering.keep(Answer(number=1), status=200)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(anyio.run, slow)
        assert begun.wait(10)
        with pytest.raises(InProgress):
            ask(kept, 2)
        with pytest.raises(InputRefused) as refused:
            ask(kept, 2, part=b"other")
        assert refused.value.code == "idempotency-key-reused"
        go_on.set()
        first.result(10)
    assert ask(kept, 3) == 1
    with engine.begin() as connection:  # as kill -9 in the middle leaves it
        connection.execute(text("UPDATE kept_answers SET status = NULL, process = 'dead'"))
    assert ask(kept, 4) is None


@pytest.mark.parametrize("well", [True, False])
def test_an_end_that_cannot_be_written_takes_no_answer_and_frees_the_key(
    engine: Engine, well: bool
) -> None:
    kept, disk = Idempotency(engine, SECRET), TakesNothing(engine)
    disk.full = False

    async def run() -> None:
        async with kept.once(caller="anna", route="r", key="k", parts=[b""]) as answering:
            disk.full = True
            if not well:
                raise ZeroDivisionError
            answering.keep(Answer(number=1), status=200)

    if well:
        anyio.run(run)  # what was done is done: it must not be called a failure
    else:
        with pytest.raises(ZeroDivisionError):
            anyio.run(run)
    disk.full = False
    assert ask(kept, 2) is None, "by the same process, and not after a day"
    assert ask(kept, 3) == 2


def test_what_is_kept_goes_in_time(engine: Engine) -> None:
    kept = Idempotency(engine, SECRET)
    assert ask(kept, 4711) is None
    assert ask(kept, 1) == 4711
    kept._clock = lambda: utc_now() + KEPT_FOR + timedelta(seconds=1)
    kept.forget_old()  # though nobody comes with a key any more
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM kept_answers")).scalar() == 0


def test_neither_key_nor_request_can_be_read_or_guessed(engine: Engine) -> None:
    ask(Idempotency(engine, SECRET), 1, key="patient-4711", part=b"4711")
    ask(Idempotency(engine, b"x" * 32), 1, key="patient-4711", part=b"4711")
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT key, fingerprint FROM kept_answers")).all()
    assert len({value for row in rows for value in row}) == 4, "what is kept depends on the secret"
    assert "4711" not in str(rows)


def store(guarded: GuardedSite, key: str, image: bytes, **fields: str) -> httpx.Response:
    return guarded.call(
        "POST",
        "/cases",
        Role.clinician,
        files={"image": ("x.png", image)},
        data=fields,
        headers={"idempotency-key": key},
    )


def test_a_case_that_is_sent_again_is_answered_alike(guarded: GuardedSite) -> None:
    first = store(guarded, "one", picture(1), patient_id="4711")
    again = store(guarded, "one", picture(1), patient_id="4711")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert again.headers["x-request-id"] != again.json()["request_id"]
    other = store(guarded, "one", picture(1), patient_id="4712")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert store(guarded, "two", picture(1), patient_id="4711").status_code == 200
    wrong = store(guarded, "three", b"no image")
    assert wrong.status_code == 415
    assert store(guarded, "three", picture(3)).status_code == 201, "an error is not kept"
    assert guarded.site.services.store.counts("dermoscopy").waiting == 2


def test_on_a_full_disk_images_are_answered_and_nothing_else_is_promised(
    guarded: GuardedSite,
) -> None:
    def predict() -> httpx.Response:
        files = [("image", (f"{n}.png", picture(n))) for n in range(2)]
        key = {"idempotency-key": "b"}
        return guarded.call("POST", "/predict/batch", Role.clinician, files=files, headers=key)

    idempotency = guarded.site.services.access.idempotency
    disk = TakesNothing(idempotency._transactions._engine)
    for answer in (predict(), predict()):
        assert answer.status_code == 200, answer.text
        assert all(one["problem"] is None for one in answer.json()["answers"])
        assert "idempotency-replayed" not in answer.headers
    refused = store(guarded, "c", picture(3))
    assert (refused.status_code, refused.json()["code"]) == (503, "store")
    disk.full = False
    assert "idempotency-replayed" not in predict().headers
    assert predict().headers["idempotency-replayed"] == "true"


def test_nothing_of_a_withdrawn_case_is_kept_for_who_asks_again(guarded: GuardedSite) -> None:
    case_id = store(guarded, "one", picture(1), patient_id="4711").json()["case_id"]
    other = store(guarded, "two", picture(2), patient_id="4712")
    assert guarded.call("POST", f"/review/{case_id}/withdraw", Role.clinician).status_code == 200
    gone = store(guarded, "one", picture(1), patient_id="4711")
    assert (gone.status_code, gone.json()["code"]) == (409, "case-withdrawn")
    assert store(guarded, "two", picture(2), patient_id="4712").json() == other.json()


def test_a_batch_that_was_too_much_may_be_sent_again(guarded: GuardedSite) -> None:
    files = [("image", ("x.png", picture(seed))) for seed in (1, 2)]
    admission = guarded.site.services.admission
    admission.capacity, capacity = 1, admission.capacity

    def send() -> Any:
        headers = {"idempotency-key": "b"}
        found = guarded.call("POST", "/predict/batch", Role.clinician, files=files, headers=headers)
        return [
            None if a["problem"] is None else a["problem"]["status"]
            for a in found.json()["answers"]
        ]

    assert send() == [None, 429]
    admission.capacity = capacity
    assert send() == [None, None]


def test_twenty_at_once_store_one_case(guarded: GuardedSite) -> None:
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: store(guarded, "k", picture(1)), range(10)))
    statuses = {answer.status_code for answer in answers}
    assert statuses <= {201, 409, 429}
    assert len({answer.json()["case_id"] for answer in answers if answer.status_code == 201}) == 1
    assert guarded.site.services.store.counts("dermoscopy").waiting == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_keys_that_are_none(guarded: GuardedSite, key: str) -> None:
    assert store(guarded, key, picture()).status_code == 422


def test_a_batch_is_answered_once(guarded: GuardedSite) -> None:
    def send(*seeds: int) -> Any:
        files = [("image", ("x.png", picture(seed))) for seed in seeds]
        headers = {"idempotency-key": "b"}
        return guarded.call("POST", "/predict/batch", Role.clinician, files=files, headers=headers)

    first, again = send(1, 2), send(1, 2)
    assert first.json() == again.json()
    assert send(2, 1).status_code == 422
