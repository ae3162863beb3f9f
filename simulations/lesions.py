"""Procedurally drawn lesions: what a class looks like, and the drawing of one lesion.

The label is in the shape of the border, the texture, the darkness and (in dermatoscopy) the
colours of the lesion, wherever it lies in the picture; no single pixel gives it away. Every
lesion departs from its class at random, so that classes overlap as real ones do.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.float32]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class LesionStyle:
    """The look of one class. Lengths are fractions of the picture's side.

    Attributes
    ----------
    radius : float
        Mean radius.
    elongation : float
        Ratio of the axes, 1 for round.
    irregularity : float
        Relative amplitude of the border's slow waves (harmonics 2 to 6).
    spicules : float
        Relative length of the thin rays that leave the border.
    softness : float
        Width of the border.
    darkness : float
        How much darker than its surroundings, 0 to 1; negative is brighter.
    texture : float
        Relative amplitude of the texture inside.
    grain : int
        Size of the texture: blobs along the picture's side.
    shadow : float
        Ultrasound behind the lesion: below 0 is shadowing, above 0 enhancement.
    colour, second_colour : tuple of float
        RGB (0-1) of the lesion and of its texture's peaks; dermatoscopy only.
    """

    radius: float = 0.18
    elongation: float = 1.2
    irregularity: float = 0.04
    spicules: float = 0.0
    softness: float = 0.02
    darkness: float = 0.4
    texture: float = 0.1
    grain: int = 8
    shadow: float = 0.0
    colour: Colour = (0.55, 0.36, 0.25)
    second_colour: Colour = (0.35, 0.2, 0.14)


BENIGN = LesionStyle(
    radius=0.15, elongation=1.45, irregularity=0.03, darkness=0.3, texture=0.08, shadow=0.15
)
MALIGNANT = LesionStyle(
    radius=0.18,
    elongation=1.1,
    irregularity=0.16,
    spicules=0.55,
    softness=0.035,
    darkness=0.62,
    texture=0.35,
    grain=14,
    shadow=-0.35,
)
NORMAL = LesionStyle(radius=0.06, darkness=0.03, softness=0.05, texture=0.02)

# Dermatoscopy, after the usual criteria (Argenziano 2003): colours, border and pattern.
_NEVUS = LesionStyle(radius=0.17, elongation=1.15, texture=0.15, grain=10, softness=0.03)
_MELANOMA = LesionStyle(
    radius=0.26,
    irregularity=0.18,
    spicules=0.15,
    texture=0.8,
    grain=7,
    colour=(0.32, 0.2, 0.17),
    second_colour=(0.22, 0.26, 0.42),
)
_KERATOSIS = LesionStyle(
    radius=0.24,
    irregularity=0.06,
    softness=0.012,
    texture=0.6,
    grain=20,
    colour=(0.62, 0.48, 0.3),
    second_colour=(0.85, 0.74, 0.5),
)
_CARCINOMA = LesionStyle(
    radius=0.2,
    irregularity=0.1,
    softness=0.05,
    texture=0.6,
    grain=5,
    colour=(0.8, 0.52, 0.5),
    second_colour=(0.36, 0.38, 0.52),
)
_ACTINIC = LesionStyle(
    radius=0.25,
    irregularity=0.12,
    softness=0.07,
    texture=0.6,
    grain=16,
    colour=(0.8, 0.44, 0.38),
    second_colour=(0.94, 0.82, 0.72),
)
_FIBROMA = LesionStyle(
    radius=0.15,
    elongation=1.05,
    softness=0.07,
    texture=0.25,
    grain=4,
    colour=(0.68, 0.48, 0.36),
    second_colour=(0.93, 0.84, 0.76),
)
_VASCULAR = LesionStyle(
    radius=0.16,
    softness=0.012,
    texture=0.6,
    grain=9,
    colour=(0.68, 0.1, 0.16),
    second_colour=(0.3, 0.04, 0.16),
)

KNOWN_STYLES: dict[str, LesionStyle] = {
    "benign": BENIGN,
    "malignant": MALIGNANT,
    "normal": NORMAL,
    "nv": _NEVUS,
    "mel": _MELANOMA,
    "bkl": _KERATOSIS,
    "bcc": _CARCINOMA,
    "akiec": _ACTINIC,
    "ak": _ACTINIC,
    "df": _FIBROMA,
    "vasc": _VASCULAR,
    "scc": replace(_ACTINIC, darkness=0.6, spicules=0.3, colour=(0.62, 0.3, 0.26)),
}


def style_for(label: str, index: int) -> LesionStyle:
    """Return the look of a class: its own where it is known, else one made from its index."""
    known = KNOWN_STYLES.get(label.lower())
    if known is not None:
        return known
    # The golden ratio spreads any number of classes evenly over each range.
    a, b, c = ((index * ratio) % 1.0 for ratio in (0.618034, 0.754878, 0.569840))
    return LesionStyle(
        radius=0.13 + 0.13 * a,
        irregularity=0.02 + 0.16 * b,
        spicules=0.5 * c,
        darkness=0.25 + 0.4 * ((a + c) % 1.0),
        texture=0.1 + 0.5 * ((b + c) % 1.0),
        grain=5 + int(14 * a),
        colour=(0.3 + 0.5 * a, 0.15 + 0.4 * b, 0.15 + 0.4 * c),
        second_colour=(0.3 + 0.5 * c, 0.15 + 0.4 * a, 0.15 + 0.4 * b),
    )


def between(style: LesionStyle, other: LesionStyle, share: float) -> LesionStyle:
    """Return a look that is ``share`` (0 to 1) of the way from one class to another."""
    changes: dict[str, Any] = {}
    for field in fields(LesionStyle):
        a, b = getattr(style, field.name), getattr(other, field.name)
        if isinstance(a, tuple):
            pairs = zip(a, b, strict=True)
            changes[field.name] = tuple((1 - share) * p + share * q for p, q in pairs)
        else:
            changes[field.name] = type(a)((1 - share) * a + share * b)
    return replace(style, **changes)


def vary(style: LesionStyle, rng: np.random.Generator, *, spread: float = 0.2) -> LesionStyle:
    """Return one patient's lesion: the class's look with each number moved at random.

    ``spread`` is the standard deviation of each factor.
    """
    f = np.exp(spread * rng.standard_normal(8))
    return replace(
        style,
        radius=float(np.clip(style.radius * f[0], 0.05, 0.33)),
        elongation=max(1.0, style.elongation * float(f[1])),
        irregularity=style.irregularity * float(f[2]),
        spicules=style.spicules * float(f[3]),
        softness=style.softness * float(f[4]),
        darkness=min(0.9, style.darkness * float(f[5])),
        texture=min(1.0, style.texture * float(f[6])),
        shadow=style.shadow * float(f[7]),
    )


@dataclass(frozen=True)
class DrawnLesion:
    """One lesion on a grid: ``mask`` and ``texture`` are (S, S) float32.

    ``mask`` is 0 outside and 1 inside; ``texture`` is a smooth field of mean 0 and deviation 1.
    ``row`` and ``column`` are the centre, ``radius`` the mean radius, in pixels.
    """

    mask: Field
    texture: Field
    row: float
    column: float
    radius: float


def draw(
    style: LesionStyle, side: int, rng: np.random.Generator, *, wander: float = 0.09
) -> DrawnLesion:
    """Draw a lesion near the middle of a picture of ``side`` pixels.

    ``wander`` is the largest distance of its centre from the middle, as a fraction of the side.
    """
    row, column = side * (0.5 + rng.uniform(-wander, wander, 2))
    line = np.arange(side, dtype=np.float32) + 0.5
    y, x = line[:, None] - np.float32(row), line[None, :] - np.float32(column)
    turn = rng.uniform(0, np.pi)
    along = x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))
    across = y * np.float32(np.cos(turn)) - x * np.float32(np.sin(turn))
    stretch = np.float32(np.sqrt(style.elongation))
    distance = np.hypot(along / stretch, across * stretch)
    angle = np.arctan2(across * stretch, along / stretch)
    radius = style.radius * side
    border = radius * _border(style, angle, rng)
    width = max(style.softness * side, 0.6)
    mask = 1.0 / (1.0 + np.exp(np.clip((distance - border) / (0.5 * width), -30.0, 30.0)))
    texture = smooth_noise(side, style.grain, rng)
    return DrawnLesion(mask.astype(np.float32), texture, float(row), float(column), radius)


def smooth_noise(side: int, grain: int, rng: np.random.Generator) -> Field:
    """Return a smooth random field (side, side), mean about 0, standard deviation 1."""
    coarse = rng.standard_normal((grain + 2, grain + 2), np.float32)
    image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    field = np.asarray(image, np.float32)
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), np.float32)


def _border(style: LesionStyle, angle: Field, rng: np.random.Generator) -> Field:
    border = np.ones_like(angle)
    for harmonic in range(2, 7):
        phase, size = rng.uniform(0, 2 * np.pi), rng.normal()
        amplitude = np.float32(style.irregularity * size * 2 / (harmonic + 1))
        border += amplitude * np.cos(harmonic * angle + np.float32(phase))
    if style.spicules > 0:
        rays = int(rng.integers(7, 12))
        ray = np.maximum(np.cos(rays * angle / 2 + np.float32(rng.uniform(0, np.pi))) ** 2, 0)
        border += np.float32(style.spicules) * ray**6
    return np.asarray(np.maximum(border, 0.3), np.float32)
