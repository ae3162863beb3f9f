from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from client.inference.result_cache import ResultCache, ResultKey

KEY = ResultKey("a" * 64, ("b" * 64,), None, None, 0.3)


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, pixels="c" * 64),
        replace(KEY, models=("c" * 64,)),
        replace(KEY, models=("b" * 64, "c" * 64)),
        replace(KEY, head="c" * 64),
        replace(KEY, profile="c" * 64),
        replace(KEY, threshold=0.31),
        replace(KEY, prepared=True),
    ],
    ids=["pixels", "model", "member", "head", "profile", "threshold", "prepared"],
)
def test_an_answer_is_given_again_only_for_all_that_made_it(other: ResultKey) -> None:
    cache: ResultCache[str] = ResultCache()
    cache.keep(KEY, "answer")
    assert cache.get(replace(KEY)) == "answer"
    assert cache.get(other) is None
    assert (cache.hits, cache.misses) == (1, 1)


def test_the_one_not_asked_for_longest_goes_first() -> None:
    cache: ResultCache[int] = ResultCache(2)
    keys = [replace(KEY, pixels=str(number)) for number in range(3)]
    cache.keep(keys[0], 0)
    cache.keep(keys[1], 1)
    cache.get(keys[0])
    cache.keep(keys[2], 2)
    assert [cache.get(key) for key in keys] == [0, None, 2]
    cache.clear()
    assert [cache.get(key) for key in keys] == [None] * 3
    assert len(cache) == 0


def test_a_cache_of_no_size_keeps_nothing() -> None:
    cache: ResultCache[int] = ResultCache(0)
    cache.keep(KEY, 1)
    assert cache.get(KEY) is None


def test_threads_do_not_break_its_bound() -> None:
    cache: ResultCache[int] = ResultCache(8)

    def work(start: int) -> None:
        for number in range(start, start + 500):
            cache.keep(replace(KEY, pixels=str(number)), number)
            found = cache.get(replace(KEY, pixels=str(number - 1)))
            assert found in (None, number - 1)

    threads = [threading.Thread(target=work, args=(n * 1000,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == 8
    assert cache.hits + cache.misses == 2000
