"""Each patient's gradient, clipped, and their sum: the part of DP-SGD that touches one patient.

Every patient's whole gradient is held, averaged over augmentations, measured, scaled and added:
what is measured is what is added, bit for bit. Ghost clipping (Li et al. 2021, arXiv:2110.05679)
would need less memory, but it measures in one backward pass and adds what a second one gives.
Their rounding differs, and whoever makes the base model can blow that difference up: a patient
then gets past the clip by hundreds of times its size. `common.gradient_check` proves the gradients
before a site trains; `client.training.device.physical_rows` bounds their memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from opacus.grad_sample import GradSampleHooks
from torch import nn

from client.training.job import Workbench
from client.training.loss import per_sample_loss
from common.errors import ModelError

SLACK = 1 + 1e-6
"""More than rounding can add to a scaled gradient; it makes the clip smaller, never larger."""


class PatientHooks(GradSampleHooks):  # type: ignore[misc]  # Opacus ships no types
    """Opacus' hooks, in float32 whatever the forward pass ran in, and without a second copy."""

    def capture_backprops_hook(
        self,
        module: nn.Module,
        _forward_input: object,
        forward_output: tuple[torch.Tensor, ...],
        loss_reduction: str,
        batch_first: bool,
    ) -> None:
        """Put a layer's per-sample gradients into ``grad_sample`` of its parameters."""
        activations, backprops = self.rearrange_grad_samples(
            module=module,
            backprops=forward_output[0].detach(),
            loss_reduction=loss_reduction,
            batch_first=batch_first,
        )
        sampler = self.GRAD_SAMPLERS[type(module)]
        inputs = [_at_least_float32(a) for a in activations]
        for parameter, gradient in sampler(module, inputs, _at_least_float32(backprops)).items():
            if parameter.grad_sample is not None:
                raise ModelError("The network uses one layer twice.", code="model-tied")
            parameter.grad_sample = gradient
        del module.max_batch_len


class ClippedSum:
    """Leaves the sum of clipped patients' gradients in ``grad``, one physical batch at a time.

    Parameters
    ----------
    bench : Workbench
        The model and what moves.
    max_grad_norm : float
        The clip C.
    multiplicity : int
        Consecutive rows that are one patient.
    """

    def __init__(self, bench: Workbench, *, max_grad_norm: float, multiplicity: int = 1) -> None:
        self._bench = bench
        self._clip = max_grad_norm
        self._multiplicity = multiplicity
        self._parameters = bench.parameters()
        rows = bench.rows(per_sample_gradients=True)
        self.patients_at_once = max(1, rows // multiplicity)
        self._hooks = PatientHooks(bench.network, loss_reduction="sum")

    def close(self) -> None:
        """Take all traces of Opacus off the model."""
        self._hooks.cleanup()
        for module in self._bench.network.modules():
            if hasattr(module, "activations"):
                del module.activations

    def add_nobody(self) -> None:
        """Leave the sum over no patient: zeros."""
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)

    def add(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Leave the clipped sum over one physical batch, shape (patients * multiplicity, ...).

        A patient whose gradient is no number adds nothing: it could not be clipped, would wipe
        out all others, and that this happened would itself tell about the patient.
        """
        patients = len(labels) // self._multiplicity
        for parameter in self._parameters:
            parameter.grad_sample = None  # type: ignore[attr-defined]
        self._losses(inputs, labels).sum().backward()  # type: ignore[no-untyped-call]
        gradients = [self._of_patients(p, patients) for p in self._parameters]
        factors = self._factors(_norms(gradients))
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            if not bool(factors.all()):
                gradient[factors == 0] = 0  # 0 times NaN is NaN
            parameter.grad = torch.einsum("i,i...", factors, gradient)
            parameter.grad_sample = None  # type: ignore[attr-defined]

    def _of_patients(self, parameter: nn.Parameter, patients: int) -> torch.Tensor:
        rows = getattr(parameter, "grad_sample", None)
        if not isinstance(rows, torch.Tensor):
            raise ModelError("A parameter takes no part in the network.", code="model-unsupported")
        if self._multiplicity == 1:
            return rows
        return rows.view(patients, self._multiplicity, *parameter.shape).mean(1)

    def _losses(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with self._bench.precision():
            logits = self._bench.network(inputs)
        return per_sample_loss(logits, labels, self._bench.job.recipe.loss)

    def _factors(self, norms: torch.Tensor) -> torch.Tensor:
        """Return what each patient is scaled by, float32; 0 where it cannot be done exactly."""
        factors = (self._clip / (norms * SLACK)).clamp(max=1.0)
        # Below float32's normal numbers a factor is off by more than the slack.
        exact = norms.isfinite() & (factors >= torch.finfo(torch.float32).tiny)
        return torch.where(exact, factors, 0).float()


def _norms(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return each patient's norm over all parameters, shape (patients,).

    In float64, since float32 loses squares below 1e-45 and has none above 3e38. Apple's GPUs have
    no float64: there a gradient that large counts as no number.
    """
    wide = torch.float32 if gradients[0].device.type == "mps" else torch.float64
    norms = [torch.linalg.vector_norm(g.flatten(1), dim=1, dtype=wide) for g in gradients]
    whole: torch.Tensor = torch.stack(norms).norm(dim=0)
    return whole


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    low = tensor.dtype in (torch.bfloat16, torch.float16)
    return tensor.float() if low else tensor
