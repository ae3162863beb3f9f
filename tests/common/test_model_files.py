import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from common.errors import ModelError
from common.model_files import (
    holds_batch_norm,
    load_tensors,
    read_safetensors,
    state_tensors,
    write_safetensors,
)


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_state_is_a_copy(model):
    before = state_tensors(model)
    kept = before["0.weight"].copy()
    with torch.no_grad():
        model[0].weight.add_(1)
    assert np.array_equal(before["0.weight"], kept)
    before["0.weight"][:] = 7
    assert not np.any(state_tensors(model)["0.weight"] == 7)


def test_loading_copies_and_keeps_parameters_in_place(model):
    tensors = {n: a + 1 for n, a in state_tensors(model).items()}
    weight = model[0].weight
    load_tensors(model, tensors)
    assert model[0].weight is weight
    assert all(np.array_equal(a, tensors[n]) for n, a in state_tensors(model).items())
    tensors["0.weight"][:] = 7
    assert not np.any(state_tensors(model)["0.weight"] == 7)


def test_double_and_big_endian_values_are_cast(model):
    tensors = state_tensors(model)
    load_tensors(model, tensors | {"0.weight": tensors["0.weight"].astype(">f8")})
    assert np.array_equal(state_tensors(model)["0.weight"], tensors["0.weight"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"0.weight": np.zeros((2, 4), np.float32)}, "model-mismatch"),
        ({"0.weight": np.zeros((3, 2), np.float32)}, "model-mismatch"),
        ({"0.weight": np.zeros((2, 3), np.int64)}, "model-mismatch"),
        ({"1.num_batches_tracked": np.zeros((), np.float32)}, "model-mismatch"),
        ({"1.num_batches_tracked": np.zeros((), np.complex64)}, "model-mismatch"),
        ({"0.bias": np.zeros(2, np.longdouble)}, "model-mismatch"),
        ({"0.bias": np.zeros(2, np.complex64)}, "model-mismatch"),
        ({"0.bias": np.array(["a", "b"])}, "model-mismatch"),
        ({"stranger": np.zeros(1, np.float32)}, "model-mismatch"),
        ({"0.bias": np.array([0, np.nan], np.float32)}, "model-not-finite"),
        ({"0.bias": np.array([0, np.inf], np.float32)}, "model-not-finite"),
        ({"0.bias": np.array([0, 1e300])}, "model-not-finite"),
    ],
)
def test_what_does_not_fit_changes_nothing(model, change, code):
    before = state_tensors(model)
    tensors = {n: a + 1 for n, a in before.items()} | change
    with pytest.raises(ModelError) as caught:
        load_tensors(model, tensors)
    assert caught.value.code == code
    assert all(np.array_equal(a, before[n]) for n, a in state_tensors(model).items())


def test_a_missing_tensor_is_refused(model):
    tensors = state_tensors(model)
    del tensors["0.bias"]
    with pytest.raises(ModelError, match="1 missing"):
        load_tensors(model, tensors)


def test_file_round_trip_with_scalars_and_strides(tmp_path):
    tensors = {
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 4), np.float32),
    }
    path = tmp_path / "model.safetensors"
    write_safetensors(path, tensors)
    found = read_safetensors(path)
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": np.zeros(1, np.float32)})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelError, match="No space left"):
        write_safetensors(path, {"a": np.ones(1, np.float32)})
    monkeypatch.undo()
    assert read_safetensors(path)["a"] == [0]
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_one_clear_error(tmp_path):
    with pytest.raises(ModelError) as caught:
        write_safetensors(tmp_path / "absent" / "model.safetensors", {})
    assert caught.value.code == "model-file"


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(ModelError) as caught:
        read_safetensors(tmp_path / "absent.safetensors")
    assert caught.value.code == "model-file"


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_file_is_a_model_error_or_still_whole(tmp_path, data):
    """Foreign bytes: cut, altered or invented. Never another exception, never a crash."""
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": np.arange(4, dtype=np.float32), "b": np.array(1, np.int64)})
    whole = bytearray(path.read_bytes())
    kind = data.draw(st.sampled_from(["cut", "alter", "invent", "dtype"]))
    if kind == "cut":
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    elif kind == "alter":
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    elif kind == "dtype":
        name = data.draw(st.sampled_from([b"BF16", b"F8_E", b"BOOL", b"U128", b"C64 "]))
        whole = bytearray(bytes(whole).replace(b'"F32"', b'"' + name + b'"'))
    else:
        whole = bytearray(data.draw(st.binary(max_size=200)))
    path.write_bytes(whole)
    try:
        tensors = read_safetensors(path)
    except ModelError as error:
        code = error.code
    else:
        code = "model-file" if all(isinstance(a, np.ndarray) for a in tensors.values()) else ""
    assert code == "model-file"


def test_batch_norm_statistics_are_noticed(tmp_path: Path) -> None:
    own, theirs = tmp_path / "own.safetensors", tmp_path / "timm.safetensors"
    write_safetensors(own, {"fc.weight": np.zeros((2, 3), np.float32)})
    write_safetensors(theirs, {"bn1.running_mean": np.zeros(3, np.float32)})
    assert not holds_batch_norm(own)
    assert holds_batch_norm(theirs)
