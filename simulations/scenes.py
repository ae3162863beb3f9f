"""What surrounds a lesion: skin, a breast in a mammogram, an ultrasound screen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from common.recipe import Recipe
from simulations.lesions import LesionStyle, draw, smooth_noise
from simulations.scanners import Picture

Scene: TypeAlias = Callable[[LesionStyle, int, np.random.Generator], Picture]


def scene_for(recipe: Recipe) -> Scene:
    """Return the drawing function of a recipe's kind of image.

    It is taken from the text of `Recipe.images`; an unknown kind is drawn as dermatoscopy where
    the text says RGB, else as a mammogram.
    """
    kind = recipe.images.lower()
    if "ultrasound" in kind:
        return ultrasound
    if "rgb" in kind or "dermat" in kind:
        return dermatoscopy
    return mammogram


def dermatoscopy(style: LesionStyle, side: int, rng: np.random.Generator) -> Picture:
    """Draw skin with hairs and one lesion, (side, side, 3)."""
    tone = np.array([0.86, 0.68, 0.58], np.float32) + np.float32(rng.normal(0, 0.04))
    skin = tone + 0.02 * smooth_noise(side, 4, rng)[..., None]
    lesion = draw(style, side, rng)
    blend = np.clip(0.5 + 0.5 * lesion.texture, 0, 1)[..., None] * np.float32(style.texture)
    first = np.asarray(style.colour, np.float32)
    second = np.asarray(style.second_colour, np.float32)
    inside = first * (1 - blend) + second * blend
    shade = np.float32(1.0 + rng.normal(0, 0.08))
    picture = skin + lesion.mask[..., None] * (inside * shade - skin)
    return _with_hairs(np.asarray(picture, np.float32), rng)


def mammogram(style: LesionStyle, side: int, rng: np.random.Generator) -> Picture:
    """Draw a breast from the left or right edge, on black, with one mass, (side, side)."""
    line = np.linspace(0, 1, side, dtype=np.float32)
    bulge = np.float32(rng.uniform(0.85, 1.0)) * np.sqrt(
        np.clip(1 - np.square((line - 0.5) / 0.62), 0, 1)
    )
    breast = 1 / (1 + np.exp(np.clip((line[None, :] - bulge[:, None]) * 40, -30, 30)))
    tissue = 0.38 + 0.05 * smooth_noise(side, 5, rng) + 0.03 * smooth_noise(side, 16, rng)
    lesion = draw(style, side, rng)
    # A mass takes up X-rays: what is dark in ultrasound is bright here.
    mass = style.darkness * (1 + style.texture * 0.5 * lesion.texture)
    picture = breast * (tissue + lesion.mask * 0.7 * mass)
    return np.asarray(picture if rng.random() < 0.5 else picture[:, ::-1], np.float32)


def ultrasound(style: LesionStyle, side: int, rng: np.random.Generator) -> Picture:
    """Draw an ultrasound screen: text, tissue with a lesion, muscle band, deep shadow.

    The tissue holds the lesion; everything else is what `region = "tissue"` crops away.
    """
    depth = np.linspace(0, 1, side, dtype=np.float32)[:, None]
    tissue = 0.42 + 0.06 * smooth_noise(side, 6, rng) - 0.08 * depth
    lesion = draw(style, side, rng, wander=0.07)
    dark = style.darkness * (1 + style.texture * 0.5 * lesion.texture)
    picture = tissue * (1 - lesion.mask * np.clip(dark, 0, 0.95))
    columns = np.arange(side, dtype=np.float32)[None, :] + 0.5
    behind = np.exp(-np.square((columns - lesion.column) / (0.9 * lesion.radius)))
    below = 1 / (1 + np.exp(-(depth * side - lesion.row - lesion.radius) / 1.5))
    picture = picture * (1 + style.shadow * behind * below)
    speckle = rng.rayleigh(0.8, (side, side)).astype(np.float32)
    picture = picture * (0.6 + 0.4 * speckle)
    return _with_screen(picture, depth, rng)


def _with_screen(picture: Picture, depth: Picture, rng: np.random.Generator) -> Picture:
    side = picture.shape[0]
    muscle = np.exp(-np.square((depth - 0.86) / 0.025)) * rng.uniform(0.4, 0.6)
    picture = picture + muscle.astype(np.float32)
    picture = picture * (1 - 0.9 / (1 + np.exp(-(depth - 0.92) * 60)))
    margin = max(1, side // 16)
    picture[:, :margin] = 0.02
    picture[:, -margin:] = 0.02
    top = max(2, side // 10)
    picture[:top] = 0.02
    overlay = Image.new("L", (side, side))
    pen = ImageDraw.Draw(overlay)
    words = f"{rng.choice(['RT', 'LT'])} {rng.integers(1, 13)}H"
    pen.text((margin, -1), words, fill=220, font_size=max(8, top))
    text = np.asarray(overlay, np.float32) / 255.0
    return np.asarray(np.maximum(np.clip(picture, 0, 1), text), np.float32)


def _with_hairs(picture: Picture, rng: np.random.Generator) -> Picture:
    count = int(rng.poisson(1.0))
    if count == 0:
        return picture.astype(np.float32)
    side = picture.shape[0]
    overlay = Image.new("L", (side, side))
    pen = ImageDraw.Draw(overlay)
    for _ in range(count):
        x0, y0, x1, y1 = rng.uniform(0, side, 4)
        pen.line((x0, y0, x1, y1), fill=160, width=max(1, side // 96))
    hair = np.asarray(overlay, np.float32)[..., None] / 255.0
    return np.asarray(picture * (1 - hair) + 0.15 * hair, np.float32)
