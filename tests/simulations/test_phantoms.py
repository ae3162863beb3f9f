import csv
import io

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from common.errors import ConfigurationError
from common.imaging import decode
from common.recipe import load_recipe
from simulations.phantoms import (
    SCANNERS,
    phantom_hospital,
    scanner_for_site,
    write_phantom_folder,
)

RECIPES = ("breast-ultrasound", "mammography", "dermoscopy", "dermoscopy-isic2019")


def drawn(recipe, patients=40, seed=0, scanner=SCANNERS[0], **options):
    rng = np.random.default_rng(seed)
    return list(phantom_hospital(recipe, scanner, patients, rng, size=48, **options))


def pixels(cases):
    return np.stack([np.asarray(Image.open(io.BytesIO(c.image)).convert("L")) for c in cases])


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_seed_draws_the_same_bytes(name):
    recipe = load_recipe(name)
    assert drawn(recipe, 8) == drawn(recipe, 8)
    assert drawn(recipe, 8)[0].image != drawn(recipe, 8, seed=1)[0].image


@pytest.mark.parametrize("name", RECIPES)
def test_every_class_is_drawn_and_every_image_can_be_decoded(name):
    recipe = load_recipe(name)
    cases = drawn(recipe, 4 * len(recipe.classes))
    assert {c.label for c in cases} == set(recipe.classes)
    assert all(decode(c.image).shape == (48, 48, 3) for c in cases)
    assert all(18 <= c.age <= 95 and c.sex in ("female", "male") for c in cases)


def test_colour_is_where_the_recipe_says_so():
    grey = decode(drawn(load_recipe("mammography"), 1)[0].image)
    colour = decode(drawn(load_recipe("dermoscopy"), 1)[0].image)
    assert (grey[..., 0] == grey[..., 2]).all()
    assert (colour[..., 0] != colour[..., 2]).any()


def test_a_patient_has_one_label_and_up_to_three_images():
    labels, counts = {}, {}
    for case in drawn(load_recipe("dermoscopy"), 60):
        assert labels.setdefault(case.patient_id, case.label) == case.label
        counts[case.patient_id] = counts.get(case.patient_id, 0) + 1
    assert len(labels) == 60
    assert set(counts.values()) == {1, 2, 3}


def test_the_class_mix_sets_the_number_of_patients():
    cases = drawn(
        load_recipe("mammography"), 40, class_mix={"benign": 3, "malignant": 1}, most_images=1
    )
    assert sum(c.label == "malignant" for c in cases) == 10


@pytest.mark.parametrize(
    "mix", [{}, {"benign": 0}, {"cyst": 1}, {"benign": -1, "malignant": 2}, {"benign": np.nan}]
)
def test_an_impossible_class_mix_is_refused(mix):
    with pytest.raises(ConfigurationError):
        drawn(load_recipe("mammography"), 4, class_mix=mix)


def test_no_patients_make_no_images():
    assert drawn(load_recipe("mammography"), 0) == []


def test_scanners_differ_and_do_not_move_the_label():
    recipe = load_recipe("mammography")
    first, third = drawn(recipe, 30), drawn(recipe, 30, scanner=scanner_for_site(2))
    assert [c.label for c in first][:1] == [c.label for c in third][:1]
    assert abs(pixels(first).mean() - pixels(third).mean()) > 2


@pytest.mark.parametrize("name", ["breast-ultrasound", "mammography", "dermoscopy"])
def test_the_signal_is_in_shape_and_texture_not_in_one_pixel(name):
    recipe = load_recipe(name)
    cases = drawn(recipe, 150, most_images=1)
    positive = np.array([c.label in recipe.decision.positive_classes for c in cases])
    grey = pixels(cases).astype(float)
    # Away from the lesion, and from the shadow behind it in ultrasound, a pixel knows nothing.
    places = [(y, x) for y in (2, 8, 24, 40) for x in (3, 7, 41, 45)]
    single = np.array([roc_auc_score(positive, grey[:, y, x]) for y, x in places])
    assert np.abs(single - 0.5).max() < 0.2
    features = shape_features(cases)
    half = len(cases) // 2
    model = LogisticRegression(max_iter=2000).fit(features[:half], positive[:half])
    score = model.predict_proba(features[half:])[:, 1]
    assert roc_auc_score(positive[half:], score) > 0.8


def shape_features(cases):
    """Spread, texture and area of the middle, in colour: what a simple observer would measure."""
    rows = []
    for case in cases:
        image = np.asarray(Image.open(io.BytesIO(case.image)).convert("RGB")).astype(float)
        middle = image[8:40, 8:40].reshape(-1, 3)
        edges = np.abs(np.diff(image[8:40, 8:40].mean(-1), axis=0)).mean()
        rows.append(
            [*middle.mean(0), *middle.std(0), *np.percentile(middle, (2, 20, 80, 98)), edges]
        )
    features = np.array(rows)
    return (features - features.mean(0)) / (features.std(0) + 1e-9)


def test_folders_of_several_hospitals_make_one_table(tmp_path):
    recipe = load_recipe("breast-ultrasound")
    for index in range(2):
        written = write_phantom_folder(
            tmp_path,
            recipe,
            scanner_for_site(index),
            5,
            np.random.default_rng(index),
            size=48,
            patient_prefix=f"h{index}-",
            site=f"h{index}",
        )
        assert written >= 5
    with (tmp_path / "labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["site"] for row in rows} == {"h0", "h1"}
    assert len({row["file"] for row in rows}) == len(rows)
    assert all((tmp_path / row["file"]).is_file() for row in rows)
    assert len({row["patient_id"] for row in rows}) == 10
