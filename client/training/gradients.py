"""Each patient's gradient, clipped, and their sum: the part of DP-SGD that touches one patient.

Two exact ways (`common.gradient_check` proves both before a site trains). With hooks, every
patient's whole gradient is held, averaged over augmentations, and clipped. Ghost clipping (Li et
al. 2021, arXiv:2110.05679) finds only its norm, and scales the patient's loss in a second backward
pass: far less memory, and quicker where layers are large. It cannot average augmentations before
the clip, so more than one of them means hooks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from opacus.grad_sample import GradSampleHooks, GradSampleHooksFastGradientClipping
from torch import nn

from client.training.job import Workbench
from client.training.loss import per_sample_loss
from common.dp_samplers import preferred_mode
from common.errors import ModelError

TINY = 1e-6
"""Keeps the division finite; it makes the clip smaller, never larger."""


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
    ghost : bool, optional
        The way; by default ghost clipping where it is quicker and possible.
    """

    def __init__(
        self,
        bench: Workbench,
        *,
        max_grad_norm: float,
        multiplicity: int = 1,
        ghost: bool | None = None,
    ) -> None:
        # bfloat16 would round the sum after its patients were clipped: only hooks then.
        possible = multiplicity == 1 and not bench.job.device.autocast
        wanted = preferred_mode(bench.network) == "ghost" if ghost is None else ghost
        self._ghost = possible and wanted
        self._bench = bench
        self._clip = max_grad_norm
        self._multiplicity = multiplicity
        self._parameters = bench.parameters()
        rows = bench.rows(per_sample_gradients=not self._ghost)
        self.patients_at_once = max(1, rows // multiplicity)
        kind = GradSampleHooksFastGradientClipping if self._ghost else PatientHooks
        self._hooks = kind(bench.network, loss_reduction="sum")

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
        (self._by_ghost if self._ghost else self._by_hooks)(inputs, labels)

    def _by_hooks(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        patients = len(labels) // self._multiplicity
        for parameter in self._parameters:
            parameter.grad_sample = None  # type: ignore[attr-defined]
        self._losses(inputs, labels).sum().backward()  # type: ignore[no-untyped-call]
        gradients = [self._of_patients(p, patients) for p in self._parameters]
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
        finite = norms.isfinite()
        factors = torch.where(finite, self._factors(norms), 0)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            if not bool(finite.all()):
                gradient[~finite] = 0  # 0 times NaN is NaN
            parameter.grad = torch.einsum("i,i...", factors, gradient)
            parameter.grad_sample = None  # type: ignore[attr-defined]

    def _of_patients(self, parameter: nn.Parameter, patients: int) -> torch.Tensor:
        rows = getattr(parameter, "grad_sample", None)
        if not isinstance(rows, torch.Tensor):
            raise ModelError("A parameter takes no part in the network.", code="model-unsupported")
        if self._multiplicity == 1:
            return rows
        return rows.view(patients, self._multiplicity, *parameter.shape).mean(1)

    def _by_ghost(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        losses = self._losses(inputs, labels)
        losses.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        norms: torch.Tensor = self._hooks.get_norm_sample().detach()
        finite = norms.isfinite()
        if not bool(finite.any()):
            self.add_nobody()
        elif not bool(finite.all()):
            del losses
            self._by_ghost(inputs[finite], labels[finite])
        else:
            for parameter in self._parameters:
                parameter.grad = None
            with self._without_hooks():
                (losses * self._factors(norms)).sum().backward()  # type: ignore[no-untyped-call]

    def _losses(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with self._bench.precision():
            logits = self._bench.network(inputs)
        return per_sample_loss(logits, labels, self._bench.job.recipe.loss)

    def _factors(self, norms: torch.Tensor) -> torch.Tensor:
        return (self._clip / (norms + TINY)).clamp(max=1.0)

    @contextmanager
    def _without_hooks(self) -> Iterator[None]:
        self._hooks.disable_hooks()
        try:
            yield
        finally:
            self._hooks.enable_hooks()


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    low = tensor.dtype in (torch.bfloat16, torch.float16)
    return tensor.float() if low else tensor
