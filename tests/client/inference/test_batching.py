import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from typing import cast

import numpy as np
import pytest

from client.inference.batching import Known, MicroBatcher
from client.inference.engine import Images, InferenceEngine
from client.inference.limits import BatchLimits
from client.inference.outputs import Outputs, Probabilities
from common.errors import Busy, ImageRefused, ModelError

BAD = 255


class FakeEngine:
    """Answers with the image's first value; waits at ``gate``; refuses the value BAD."""

    def __init__(self, offset: float = 0) -> None:
        self.offset = offset
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.sizes: list[int] = []

    def answers(self, images: Images) -> Outputs:
        self.entered.set()
        assert self.gate.wait(10)
        self.sizes.append(len(images))
        if (images[:, 0, 0, 0] == BAD).any():
            raise ModelError("not finite", code="prediction-not-finite")
        values = images[:, 0, 0, :1].astype(np.float64) + self.offset
        return Outputs(values, values, values.astype(np.float32))


def engine(offset: float = 0, *, is_open: bool = True) -> tuple[FakeEngine, InferenceEngine]:
    fake = FakeEngine(offset)
    if is_open:
        fake.gate.set()
    return fake, cast(InferenceEngine, fake)


def image(value: int) -> Images:
    return np.full((2, 2, 3), value, np.uint8)


class Ask:
    """Work that gives a value's image, and answers with the output's probabilities."""

    def __init__(self, prepare: Callable[[], Images | Known[Probabilities]]) -> None:
        self.prepare = prepare

    def finish(self, output: Outputs) -> Probabilities:
        return output.probabilities[0]


def ready(value: int) -> Ask:
    return Ask(lambda: image(value))


@pytest.fixture
def batcher() -> Iterator[MicroBatcher]:
    made = MicroBatcher(BatchLimits(batch=4, wait=0.001, queue=8))
    yield made
    made.close()


def test_what_waits_together_runs_together(batcher: MicroBatcher) -> None:
    fake, model = engine(is_open=False)
    first = batcher.submit(model, ready(0))
    assert fake.entered.wait(10)
    others = [batcher.submit(model, ready(i)) for i in range(1, 7)]
    assert batcher.waiting == 6
    fake.gate.set()
    assert [float(f.result(10)[0]) for f in [first, *others]] == list(range(7))
    assert fake.sizes == [1, 4, 2]


def test_a_full_queue_refuses(batcher: MicroBatcher) -> None:
    fake, model = engine(is_open=False)
    accepted = [batcher.submit(model, ready(0))]
    assert fake.entered.wait(10)
    accepted += [batcher.submit(model, ready(i)) for i in range(1, 9)]
    with pytest.raises(Busy) as refused:
        batcher.submit(model, ready(9))
    assert refused.value.code == "busy"
    fake.gate.set()
    assert not wait(accepted, 10).not_done


def test_one_bad_image_fails_alone(batcher: MicroBatcher) -> None:
    fake, model = engine(is_open=False)
    batcher.submit(model, ready(0))
    assert fake.entered.wait(10)
    futures = [batcher.submit(model, ready(value)) for value in (1, BAD, 3)]
    fake.gate.set()
    assert futures[0].result(10) == [1]
    with pytest.raises(ModelError):
        futures[1].result(10)
    assert futures[2].result(10) == [3]


def test_each_image_is_answered_by_the_model_it_came_with(batcher: MicroBatcher) -> None:
    blocking, blocker = engine(is_open=False)
    _, old = engine(100)
    _, new = engine(200)
    batcher.submit(blocker, ready(0))
    assert blocking.entered.wait(10)
    futures = [batcher.submit(m, ready(i)) for i, m in enumerate((old, new, old, new))]
    blocking.gate.set()
    assert [float(f.result(10)[0]) for f in futures] == [100, 201, 102, 203]


def test_who_has_gone_is_not_computed(batcher: MicroBatcher) -> None:
    fake, model = engine(is_open=False)
    first = batcher.submit(model, ready(0))
    assert fake.entered.wait(10)
    gone, stays = batcher.submit(model, ready(1)), batcher.submit(model, ready(2))
    assert gone.cancel()
    fake.gate.set()
    assert stays.result(10) == [2]
    assert first.result(10) == [0]
    assert fake.sizes == [1, 1]


def test_an_idle_batcher_keeps_no_model_alive(batcher: MicroBatcher) -> None:
    fake, model = engine()
    gone = weakref.ref(fake)
    assert batcher.submit(model, ready(1)).result(10) == [1]
    del fake, model
    # The next turn of the thread begins after the answer is given; another image marks it.
    _, other = engine()
    assert batcher.submit(other, ready(2)).result(10) == [2]
    assert gone() is None


def test_closing_answers_what_waits_and_refuses_the_rest() -> None:
    batcher = MicroBatcher()
    fake, model = engine(is_open=False)
    futures = [batcher.submit(model, ready(i)) for i in range(3)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    fake.gate.set()
    closing.join(10)
    assert [float(f.result(0)[0]) for f in futures] == [0, 1, 2]
    with pytest.raises(Busy) as refused:
        batcher.submit(model, ready(3))
    assert refused.value.code == "closing"
    batcher.close()


def test_an_image_that_cannot_be_read_fails_alone_and_with_its_own_error(
    batcher: MicroBatcher,
) -> None:
    fake, model = engine(is_open=False)
    batcher.submit(model, ready(0))
    assert fake.entered.wait(10)

    def unreadable() -> Images:
        raise ImageRefused("no image", code="image-unreadable")

    def broken() -> Images:
        raise KeyError("a patient's name")

    refused, failed = batcher.submit(model, Ask(unreadable)), batcher.submit(model, Ask(broken))
    stays = batcher.submit(model, ready(2))
    fake.gate.set()
    with pytest.raises(ImageRefused):
        refused.result(10)
    with pytest.raises(ModelError) as told:
        failed.result(10)
    assert "patient" not in told.value.line()
    assert stays.result(10) == [2]


def test_who_waited_too_long_is_told_and_not_computed() -> None:
    batcher = MicroBatcher(BatchLimits(queue_seconds=0.05))
    fake, model = engine(is_open=False)
    first = batcher.submit(model, ready(0))
    assert fake.entered.wait(10)
    late = batcher.submit(model, ready(1))
    time.sleep(0.1)
    fake.gate.set()
    assert first.result(10) == [0]
    with pytest.raises(Busy) as refused:
        late.result(10)
    assert refused.value.code == "queue-deadline"
    assert fake.sizes == [1]
    batcher.close()


def test_lanes_run_at_the_same_time_and_all_end() -> None:
    batcher = MicroBatcher(BatchLimits(lanes=2, batch=1))
    (one, first), (other, second) = engine(is_open=False), engine(is_open=False)
    answers = [batcher.submit(first, ready(1)), batcher.submit(second, ready(2))]
    assert one.entered.wait(10)
    assert other.entered.wait(10)
    one.gate.set()
    other.gate.set()
    assert [float(a.result(10)[0]) for a in answers] == [1, 2]
    batcher.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("inference-")]


def test_a_known_answer_asks_no_network(batcher: MicroBatcher) -> None:
    fake, model = engine()
    known = batcher.submit(model, Ask(lambda: Known(np.array([7.0]))))
    assert known.result(10) == [7]
    assert batcher.submit(model, ready(1)).result(10) == [1]
    assert fake.sizes == [1]


def test_an_answer_that_cannot_be_read_fails_alone_and_says_no_secret(
    batcher: MicroBatcher,
) -> None:
    class Unread(Ask):
        def finish(self, output: Outputs) -> Probabilities:
            raise KeyError("a patient's name")

    fake, model = engine(is_open=False)
    first = batcher.submit(model, ready(0))
    assert fake.entered.wait(10)
    failed = batcher.submit(model, Unread(lambda: image(1)))
    stays = batcher.submit(model, ready(2))
    fake.gate.set()
    with pytest.raises(ModelError) as told:
        failed.result(10)
    assert "patient" not in told.value.line()
    assert [float(f.result(10)[0]) for f in (first, stays)] == [0, 2]
