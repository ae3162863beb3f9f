"""Which patients, or images, a local step sees."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from client.training.dataset import PatientImages
from client.training.noise import PrivateRandom

Indices = NDArray[np.int64]


def sample_patients(images: PatientImages, rate: float, random: PrivateRandom) -> Indices:
    """Poisson-sample patients, and one image of each.

    Parameters
    ----------
    images : PatientImages
        The training side.
    rate : float
        Probability q in (0, 1] with which each patient enters, independently of all others.
    random : PrivateRandom
        Where the chances come from.

    Returns
    -------
    ndarray of int64
        Indices of images, at most one a patient; may be empty.
    """
    chances = random.uniform(2 * len(images.patients))
    enters, which = chances[: len(images.patients)], chances[len(images.patients) :]
    chosen = [
        group[min(int(which[patient] * len(group)), len(group) - 1)]  # the product may round up
        for patient, group in enumerate(images.patients)
        if enters[patient] < rate
    ]
    return np.array(chosen, dtype=np.int64)


def shuffled_batch(
    labels: Indices, *, batch: int, step: int, campaign: str, balance: bool = False
) -> Indices:
    """Return one batch of a campaign's endless shuffled stream, without privacy.

    The stream is one permutation of all images after another, each fixed by the campaign's name
    and its number, so that a site needs no memory between messages: every image comes once a pass.

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
        Class of each image, N > 0.
    batch : int
        Images in the batch.
    step : int
        Local steps of the campaign before this one.
    campaign : str
        Its identifier.
    balance : bool, default False
        Draw each class that is there equally often; rare images then come several times a pass.
    """
    length = _balanced_share(labels) * len(np.unique(labels)) if balance else len(labels)
    positions = np.arange(step * batch, (step + 1) * batch)
    passes, offsets = np.divmod(positions, length)
    result = np.empty(batch, dtype=np.int64)
    for number in np.unique(passes):
        here = passes == number
        result[here] = _pass(labels, int(number), campaign, balance)[offsets[here]]
    return result


def _pass(labels: Indices, number: int, campaign: str, balance: bool) -> Indices:
    seed = hashlib.sha256(f"{campaign}\0{number}".encode()).digest()
    generator = np.random.default_rng(list(seed))
    if balance:
        return generator.permutation(_balanced(labels, generator))
    return generator.permutation(len(labels)).astype(np.int64)


def _balanced(labels: Indices, generator: np.random.Generator) -> Indices:
    present = np.unique(labels)
    share = _balanced_share(labels)
    parts = []
    for label in present:
        members = np.flatnonzero(labels == label)
        parts.append(np.resize(generator.permutation(members), share))
    return np.concatenate(parts).astype(np.int64)


def _balanced_share(labels: Indices) -> int:
    """Images of each class in a balanced pass; a pass stays about as long as the data."""
    return -(-len(labels) // len(np.unique(labels)))
