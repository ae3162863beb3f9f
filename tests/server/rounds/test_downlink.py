from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.compression import Compression, Packed, apparent_shapes, decode
from common.update import apply, tensors_digest
from server.rounds.downlink import DownLink

Model = dict[str, NDArray[Any]]


def first() -> Model:
    random = np.random.default_rng(0)
    return {
        "w": random.normal(size=(40, 25)).astype(np.float32),
        "frozen": np.ones(500, dtype=np.float32),
        "count": np.array(3, dtype=np.int64),
    }


def wished(model: Model, number: int) -> Model:
    step = np.random.default_rng(number).normal(size=(40, 25)).astype(np.float32) * 1e-2
    return {**model, "w": model["w"] + step}


def received(held: Model, link: DownLink, digest: str) -> Model:
    packed = link.step_to(digest)
    assert packed is not None
    assert packed.header.base_digest == tensors_digest(held)
    from safetensors.numpy import load

    arrays = load(packed.tensors["safetensors"].data)
    change = decode(Packed(packed.header.compression, arrays), apparent_shapes(arrays))
    return apply(held, change)


@pytest.mark.parametrize("kind", ["fp16", "int8", "top-k"])
def test_sites_rebuild_every_bit_from_steps(kind: Compression) -> None:
    link, model = DownLink(kind), first()
    held = model
    for number in range(1, 6):
        model = link.advance(model, wished(model, number), number=number)
        held = received(held, link, tensors_digest(model))
        assert tensors_digest(held) == tensors_digest(model)


def test_what_never_moves_is_never_sent_and_a_step_is_a_quarter() -> None:
    link, model = DownLink("int8"), first()
    after = link.advance(model, wished(model, 1), number=1)
    step = link.step_to(tensors_digest(after))
    assert step is not None
    assert len(step.tensors["safetensors"].data) < 1000 + 300


def test_the_model_stays_near_what_the_optimizer_wished() -> None:
    """Without the memory, what is too small for a level would be lost for ever."""
    link, model, target = DownLink("int8"), first(), first()
    tiny = np.full((40, 25), 1e-4, dtype=np.float32)
    tiny[0, 0] = 1.0  # makes one level 8e-3
    for number in range(1, 401):
        target = {**target, "w": target["w"] + tiny}
        model = link.advance(model, {**model, "w": model["w"] + tiny}, number=number)
    assert np.abs(model["w"] - target["w"])[1:].max() < 2 / 127


def test_no_step_without_compression_nor_where_another_kind_of_tensor_moves() -> None:
    model = first()
    link = DownLink("none")
    wish = wished(model, 1)
    assert tensors_digest(link.advance(model, wish, number=1)) == tensors_digest(wish)
    assert link.step_to(tensors_digest(wish)) is None
    link = DownLink("int8")
    counted = {**wish, "count": np.array(4, dtype=np.int64)}
    assert tensors_digest(link.advance(model, counted, number=1)) == tensors_digest(counted)
    assert link.step_to(tensors_digest(counted)) is None


def test_a_step_leads_to_one_model_only() -> None:
    link, model = DownLink("int8"), first()
    after = link.advance(model, wished(model, 1), number=1)
    assert link.step_to(tensors_digest(model)) is None
    assert link.step_to(tensors_digest(after)) is not None


def test_a_checkpoint_keeps_what_was_left_over() -> None:
    link, model = DownLink("int8"), first()
    middle = link.advance(model, wished(model, 1), number=1)
    resumed = DownLink("int8")
    resumed.restore(link.state())
    ends = [x.advance(middle, wished(middle, 2), number=2) for x in (link, resumed)]
    assert tensors_digest(ends[0]) == tensors_digest(ends[1])
    forgetful = DownLink("int8").advance(middle, wished(middle, 2), number=2)
    assert tensors_digest(forgetful) != tensors_digest(ends[0])
