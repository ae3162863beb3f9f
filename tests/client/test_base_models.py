from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from client import base_models
from client.base_models import BaseModels
from client.settings import SiteSettings
from common.compression import compress
from common.errors import PlanRefused
from common.plan import SignedPlan
from common.signing import SigningKey
from common.update import Tensors, apply, tensors_digest
from common.wire import ModelStep

KEY = SigningKey.generate()
UNSIGNED = SignedPlan(b"{}", KEY.sign(b"{}"))


def model(seed: int = 0) -> Tensors:
    return {"w": np.random.default_rng(seed).normal(size=30).astype(np.float32)}


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BaseModels:
    monkeypatch.setattr(base_models, "read_plan_keys", lambda _settings: ())
    monkeypatch.setattr(base_models, "verify_plan", lambda *_, **__: None)
    return BaseModels(cast(SiteSettings, SimpleNamespace(data=tmp_path)))


def step_from(base: Tensors) -> tuple[ModelStep, Tensors, Tensors]:
    change = {"w": np.full(30, 0.01, dtype=np.float32)}
    found = compress(change, "int8", seed=b"s")
    header = ModelStep(base_digest=tensors_digest(base), compression="int8")
    return header, found.packed.arrays, apply(base, found.decoded)


def test_a_step_from_a_held_model_gives_every_bit_of_the_next(models: BaseModels) -> None:
    base = model()
    models.keep(tensors_digest(base), base)
    header, arrays, after = step_from(base)
    assert tensors_digest(models.resolve(UNSIGNED, arrays, header)) == tensors_digest(after)


def test_a_model_that_is_not_held_is_unknown(models: BaseModels) -> None:
    header, arrays, _ = step_from(model())
    with pytest.raises(PlanRefused) as refused:
        models.resolve(UNSIGNED, arrays, header)
    assert refused.value.code == "base-unknown"


def test_a_damaged_model_is_unknown_and_removed(models: BaseModels, tmp_path: Path) -> None:
    base = model()
    models.keep(tensors_digest(base), base)
    [path] = (tmp_path / "base-models").iterdir()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    header, arrays, _ = step_from(base)
    with pytest.raises(PlanRefused) as refused:
        models.resolve(UNSIGNED, arrays, header)
    assert refused.value.code == "base-unknown"
    assert not path.exists()


def test_a_step_that_does_not_fit_is_refused(models: BaseModels) -> None:
    base = model()
    models.keep(tensors_digest(base), base)
    header, arrays, _ = step_from(base)
    for bad in (
        {"values/w": np.zeros(31, dtype=np.int8), "scales": arrays["scales"]},
        {"values/other": arrays["values/w"], "scales": arrays["scales"]},
        {**arrays, "scales": np.array([np.nan], dtype=np.float32)},
    ):
        with pytest.raises(PlanRefused) as refused:
            models.resolve(UNSIGNED, bad, header)
        assert refused.value.code == "request-malformed"


def test_nothing_is_computed_for_a_plan_that_nobody_signed(tmp_path: Path) -> None:
    (tmp_path / "trust" / "plan-keys").mkdir(parents=True)
    other = SigningKey.generate().verify_key.pem()
    (tmp_path / "trust" / "plan-keys" / "1.pem").write_bytes(other)
    settings = cast(SiteSettings, SimpleNamespace(data=tmp_path, trust=tmp_path / "trust"))
    header, arrays, _ = step_from(model())
    with pytest.raises(PlanRefused) as refused:
        BaseModels(settings).resolve(UNSIGNED, arrays, header)
    assert refused.value.code == "plan-signature"


def test_only_the_newest_stay(models: BaseModels, tmp_path: Path) -> None:
    for seed in range(5):
        models.keep(tensors_digest(model(seed)), model(seed))
    names = {path.stem for path in (tmp_path / "base-models").iterdir()}
    assert names == {tensors_digest(model(seed)) for seed in (3, 4)}
    for path in (tmp_path / "base-models").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
