import pytest
import torch

from client.training.device import choose_device, limit_threads, physical_rows
from common.errors import ConfigurationError
from common.model import build_model, set_trainable
from tests.client.rounds import TOY
from tests.client.training_toys import TinyNet


def test_auto_takes_what_there_is() -> None:
    there = (
        "cuda"
        if torch.cuda.is_available()
        else "mps"
        if torch.backends.mps.is_available()
        else "cpu"
    )
    assert choose_device("auto").torch.type == there
    assert choose_device("cpu").torch.type == "cpu"
    assert not choose_device("cpu").autocast


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_an_absent_device_is_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        choose_device("cuda")
    assert caught.value.code == "device-absent"


def test_more_memory_holds_more_rows() -> None:
    model = build_model(TOY, pretrained=False)
    rows = [
        physical_rows(model, 32, megabytes=m, per_sample_gradients=True) for m in (64, 256, 1024)
    ]
    assert rows == sorted(rows)
    assert rows[0] < rows[2]
    assert physical_rows(model, 32, megabytes=256, per_sample_gradients=False) > rows[1]
    set_trainable(model, "head")
    assert physical_rows(model, 32, megabytes=256, per_sample_gradients=True) > rows[1]
    assert model.training


@pytest.mark.parametrize("architecture", ["convnext_tiny", "vit_small_patch16_224", "resnet50"])
def test_each_images_gradient_is_counted(architecture: str) -> None:
    """Of the largest networks, too, a physical batch holds no more than the setting allows."""
    model_spec = TOY.model.model_copy(update={"architecture": architecture})
    model = build_model(TOY.model_copy(update={"model": model_spec}), pretrained=False)
    set_trainable(model, "all")
    gradient = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    rows = physical_rows(model, 32, megabytes=2048, per_sample_gradients=True)
    assert rows > 1
    assert 2 * rows * gradient < 2048 * 2**20


def test_one_image_always_fits() -> None:
    assert physical_rows(TinyNet(), 16, megabytes=0, per_sample_gradients=True) == 1


def test_threads() -> None:
    before = torch.get_num_threads()
    limit_threads(0)
    assert torch.get_num_threads() == before
    limit_threads(1)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)
