"""Randomness that privacy rests on: Gaussian noise and Poisson sampling from a CSPRNG.

torch's CPU generator takes 32 bits of a seed, and its Mersenne Twister is linear: who sees an
update could try all seeds, or solve for the state from noise that hardly hides its high bits, and
take the noise off again. So bits come from AES-256 in counter mode under a fresh key from the
operating system, and become normal deviates by Box and Muller's transform in float64. The sum of
gradient and noise is rounded to float32 once, so that float32's gaps tell nothing about the sum
(Mironov 2012, doi:10.1145/2382196.2382264).
"""

from __future__ import annotations

import math
import os

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

PAIRS = 1 << 15
"""Deviates are made this many pairs at a time, which stays within the processor's cache."""
UNIT = 2.0**-53


class PrivateRandom:
    """A cryptographic random stream. It takes no seed, so nothing can repeat it."""

    def __init__(self) -> None:
        cipher = Cipher(algorithms.AES256(os.urandom(32)), modes.CTR(os.urandom(16)))
        self._stream: CipherContext = cipher.encryptor()
        self._zeros = bytes(16 * PAIRS)
        self._buffer = bytearray(16 * PAIRS + 15)

    def normal(self, count: int) -> torch.Tensor:
        """Return ``count`` standard normal deviates, float64, on the CPU."""
        result = torch.empty(count, dtype=torch.float64)
        for start in range(0, count, 2 * PAIRS):
            block = self._normal_block(min(PAIRS, (count - start + 1) // 2))
            part = result[start : start + len(block)]
            part.copy_(block[: len(part)])
        return result

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return ``count`` uniform deviates in [0, 1), multiples of 2**-53."""
        raw = np.frombuffer(self._stream.update(bytes(8 * count)), dtype=np.uint64)
        return (raw >> np.uint64(11)).astype(np.float64) * UNIT

    def seed(self) -> int:
        """Return 63 random bits, for a generator whose randomness protects nobody."""
        return int.from_bytes(self._stream.update(bytes(8)), "little") >> 1

    def _normal_block(self, pairs: int) -> torch.Tensor:
        self._stream.update_into(self._zeros[: 16 * pairs], self._buffer)
        bits = torch.frombuffer(self._buffer, dtype=torch.int64, count=2 * pairs)
        uniform = ((bits >> 11) & ((1 << 53) - 1)).double().mul_(UNIT)
        # 1 - u lies in (0, 1]: the logarithm is finite.
        radius = uniform[:pairs].neg_().add_(1).log_().mul_(-2).sqrt_()
        angle = uniform[pairs:].mul_(2 * math.pi)
        return torch.cat([radius * angle.cos(), radius * angle.sin()])
