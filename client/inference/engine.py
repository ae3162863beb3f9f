"""The model that answers: self-tested before it may, swapped as one reference.

Torch answers first, on the CPU or a CUDA device. On the CPU ONNX Runtime takes its place as soon as
the network's graph is made and its answers were compared (`InferenceEngine.quicken`).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.inference.golden import golden_images, self_test, self_test_failed
from client.inference.outputs import (
    Classifier,
    Outputs,
    Probabilities,
    WithFeatures,
    probabilities_of,
)
from client.inference.runtimes import Batch, Runtime, RuntimeName, TorchRuntime, compared
from client.personalisation.head import PersonalHead
from client.reading.profile import SiteProfile
from client.reading.uncertainty import DropoutHeads
from client.releases.cache import LocalRelease
from common.errors import ModelError, ReleaseError
from common.imaging import normalise
from common.model import build_model, load_tensors, state_tensors
from common.recipe import Recipe
from common.release import ReleaseManifest
from common.update import tensors_digest

Images: TypeAlias = NDArray[np.uint8]


class InferenceEngine:
    """One released network, ready to answer.

    Made by `load`, which is the only way to get one that passed its self-test.

    Attributes
    ----------
    profile : SiteProfile or None
        How its answers are read at this site; set before it is swapped in, and as a whole. None
        is the plain release: not calibrated at this site.
    members : tuple of InferenceEngine
        Older releases of the same recipe that answer together with it, none by default; set before
        it is swapped in.
    classifier : Classifier or None
        Its last layer, None where that is not a linear one.
    """

    def __init__(
        self,
        network: nn.Module,
        manifest: ReleaseManifest,
        *,
        device: torch.device,
        head_digest: str | None = None,
    ) -> None:
        self.manifest = manifest
        self.head_digest = head_digest
        self.profile: SiteProfile | None = None
        self.members: tuple[InferenceEngine, ...] = ()
        self._device = device
        self._network = network.eval().to(device)
        divided = WithFeatures(self._network, manifest.recipe.image.size)
        self.classifier: Classifier | None = divided.classifier
        self._torch = TorchRuntime(divided.eval(), device)
        self._runtime: Runtime = self._torch

    @classmethod
    def load(
        cls, release: LocalRelease, *, device: torch.device, head: PersonalHead | None = None
    ) -> InferenceEngine:
        """Build, load, warm up and self-test a release's network.

        The self-test holds that the digest of the loaded weights is the manifest's, that the
        outputs on fixed noise images are probabilities, and that an image's answer does not
        depend on the others in its batch.

        Parameters
        ----------
        release : LocalRelease
            Verified by the release cache.
        device : torch.device
            Where it runs.
        head : PersonalHead, optional
            The site's own, put in the place of the release's classifier once that is verified.

        Raises
        ------
        ReleaseError
            If the weights cannot be read (see `LocalRelease.load`), or with code
            ``release-self-test`` if the self-test fails, or ``device-memory``.
        ModelError
            If the network cannot be built, or the weights do not fit it.
        """
        network = build_model(release.manifest.recipe, pretrained=False)
        load_tensors(network, release.load())
        if tensors_digest(state_tensors(network)) != release.manifest.model_digest:
            raise self_test_failed("The loaded weights are not those that the manifest names.")
        if head is not None:
            load_tensors(network, state_tensors(network) | head.tensors)
        # TF32 would round each convolution to 10 bits, by kernels that differ with the batch size.
        torch.backends.cudnn.allow_tf32 = False
        try:
            own = head.digest if head is not None else None
            engine = cls(network, release.manifest, device=device, head_digest=own)
            self_test(engine)
        except torch.OutOfMemoryError as error:
            # Says nothing about the release: training may hold the device's memory just now.
            raise ReleaseError(
                "The device has no memory left for another model.", code="device-memory"
            ) from error
        return engine

    @property
    def version(self) -> int:
        """The release's version."""
        return self.manifest.version

    @property
    def digest(self) -> str:
        """Digest of the weights (64 hex digits)."""
        return self.manifest.model_digest

    @property
    def member_digests(self) -> tuple[str, ...]:
        """Digests of the weights of those that answer together with it."""
        return tuple(member.digest for member in self.members)

    @property
    def recipe(self) -> Recipe:
        """The recipe as trained; its ``image`` part says how pixels are prepared."""
        return self.manifest.recipe

    @property
    def network(self) -> nn.Module:
        """The torch network, the site's own head on it; shared by threads: hang no hooks on it."""
        return self._network

    @property
    def runtime(self) -> RuntimeName:
        """What computes the answers now."""
        return self._runtime.name

    def quicken(self, graph: Path) -> None:
        """Let ONNX Runtime answer from now on, if it answers as torch does.

        Calls under way end as they began. The weights are the loaded ones.

        Parameters
        ----------
        graph : Path
            The network's, from `client.inference.graphs.GraphStore`.

        Raises
        ------
        ModelError
            With code ``graph-weights`` or ``graph-differs``; torch then goes on answering.
        """
        tensors = state_tensors(self._network)
        self._runtime = compared(
            graph, tensors, self._torch, self._batch(golden_images(self.recipe.image.size))
        )

    def probabilities(self, images: Images) -> Probabilities:
        """Return class probabilities, (B, K): those of `outputs`, which see."""
        return self.outputs(images).probabilities

    def outputs(self, images: Images) -> Outputs:
        """Return what the network makes of images.

        Parameters
        ----------
        images : ndarray of uint8, (B, S, S, 3)
            Prepared by `common.imaging.prepare` for this recipe; B at least 1.

        Returns
        -------
        Outputs
            Classes in the recipe's order; each row of probabilities sums to 1.

        Raises
        ------
        ModelError
            If an output is not finite (code ``prediction-not-finite``).
        """
        logits, features = self._runtime.run(self._batch(images))
        result = Outputs(logits, probabilities_of(logits), features)
        if not np.isfinite(result.probabilities).all() or not np.isfinite(features).all():
            raise ModelError(
                "The model gave no usable number for this image.",
                meaning="No probability can be shown.",
                action="Try another image; tell the coordinator if it happens again.",
                code="prediction-not-finite",
            )
        return result

    def answers(self, images: Images) -> Outputs:
        """Return `outputs`, or those of this network and its ``members`` together.

        Together ``probabilities`` are the mean of theirs; logits and features stay this
        network's own.
        """
        own = self.outputs(images)
        if not self.members:
            return own
        others = [member.outputs(images).probabilities for member in self.members]
        members = np.stack([own.probabilities, *others], axis=1)
        return Outputs(own.logits, members.mean(axis=1), own.features, members)

    @cached_property
    def dropout(self) -> DropoutHeads | None:
        """The classifier as many; None where the last layer is not a linear one."""
        return None if self.classifier is None else DropoutHeads(self.classifier)

    def _batch(self, images: Images) -> Batch:
        return normalise(images, self.recipe.image)


class ModelHolder:
    """The one reference to the engine that answers.

    A request takes the reference once and keeps it to its end, so a swap needs no lock and drops
    nothing; the old network is freed when its last request lets go.
    """

    def __init__(self) -> None:
        self._engine: InferenceEngine | None = None

    @property
    def current(self) -> InferenceEngine | None:
        """The engine that answers now, None before the first release is loaded."""
        return self._engine

    def require(self) -> InferenceEngine:
        """Return the engine that answers now.

        Raises
        ------
        ReleaseError
            With code ``no-model`` before the first release is loaded.
        """
        if self._engine is None:
            raise ReleaseError(
                "No released model is loaded yet.",
                meaning="This site cannot answer; cases can be stored all the same.",
                action="Wait for the coordinator's first release, or check the connection to it.",
                code="no-model",
            )
        return self._engine

    def swap(self, engine: InferenceEngine | None) -> None:
        """Let another engine answer from the next request on; None lets nothing answer."""
        self._engine = engine
