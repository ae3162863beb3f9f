from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RecipeError
from common.recipe import Recipe, load_recipe, parse_recipe, shipped_recipes

MINIMAL = """
name = "x-ray"
title = "X"
images = "grey"
classes = ["no", "yes"]
[image]
size = 32
[model]
architecture = "resnet18"
[decision]
positive_classes = ["yes"]
"""


def test_four_recipes_come_with_wardround() -> None:
    assert set(shipped_recipes()) >= {
        "mammography", "breast-ultrasound", "dermoscopy", "dermoscopy-isic2019",
    }  # fmt: skip


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_is_whole(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert parse_recipe(recipe.model_dump_json()) == recipe
    assert set(recipe.decision.positive_classes) < set(recipe.classes)
    assert recipe.federation.quorum >= 2, "one hospital's model must never be released"
    assert recipe.release.minimum_sites >= 2


def test_any_file_is_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    assert load_recipe(str(path)).name == "x-ray"


@pytest.mark.parametrize("name", ["no-such", "/no/such.toml", "", "../recipe"])
def test_an_unknown_recipe_says_which_there_are(name: str) -> None:
    with pytest.raises(RecipeError, match="dermoscopy"):
        load_recipe(name)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (("classes =", 'classes = ["no", "no"]\nother ='), "other"),
        (('classes = ["no", "yes"]', 'classes = ["no", "no"]'), "named twice"),
        (('positive_classes = ["yes"]', 'positive_classes = ["maybe"]'), "maybe"),
        (("size = 32", "size = 1"), "image.size"),
        (('name = "x-ray"', 'name = "X Ray"'), "name"),
        (('name = "x-ray"', ""), "name"),
        (("[decision]", "[loss]\nclass_weights = [1.0]\n[decision]"), "class_weights"),
        (("[decision]", "[training]\nsampling_rate = 0\n[decision]"), "sampling_rate"),
        (("[decision]", "[federation]\nquorum = 0\n[decision]"), "quorum"),
        (("[decision]", "[decision"), "TOML"),
    ],
)
def test_a_broken_recipe_names_the_field(change: tuple[str, str], field: str) -> None:
    with pytest.raises(RecipeError, match=field):
        parse_recipe(MINIMAL.replace(*change))


@given(text=st.text(max_size=80))
def test_any_text_is_a_recipe_or_a_recipe_error(text: str) -> None:
    with pytest.raises(RecipeError):
        parse_recipe(text)


def test_changes_are_validated_and_change_the_digest() -> None:
    recipe = parse_recipe(MINIMAL)
    changed = recipe.with_changes(model="resnet50", image_size=64, rounds=2, epsilon=1.0)
    assert (changed.model.architecture, changed.image.size) == ("resnet50", 64)
    assert (changed.federation.rounds, changed.privacy.epsilon) == (2, 1.0)
    assert changed.digest != recipe.digest
    assert recipe.with_changes() == recipe
    with pytest.raises(RecipeError, match="epsilon"):
        recipe.with_changes(epsilon=-1)


def test_equal_recipes_have_equal_digests() -> None:
    assert (
        parse_recipe(MINIMAL).digest
        == Recipe.model_validate(parse_recipe(MINIMAL).model_dump()).digest
    )


PINNED = {
    "breast-ultrasound": "9366f9ec88417802f18b2927316983333fa70c19255017c65c24fa3cb32df7af",
    "dermoscopy": "9d3b703ebcc230656edbbdd075f799138a59a230d3adb2790848fe69d7d3ccae",
    "dermoscopy-isic2019": "05b988a7a648eaae496e72881d36a88897444c685154bcadb5117f73ac1de7bc",
    "mammography": "1b436c7c4d4dc49d36a9c36312efabf80d530840d74fddda49dfb535e585822e",
}


@pytest.mark.parametrize("name", sorted(PINNED))
def test_the_words_of_classes_change_no_digest(name: str) -> None:
    """A policy may allow `name@digest`: these digests are older than the words."""
    recipe = load_recipe(name)
    bare = recipe.model_copy(update={"display": ()})
    assert {words for words, _ in recipe.display} >= set(recipe.classes)
    assert recipe.digest == bare.digest == PINNED[name]
    assert recipe.allows(bare)
    assert bare.allows(recipe)
    assert "display" not in bare.model_dump_json()  # an older program refuses unknown fields


def test_words_travel_with_the_recipe_and_stand_before_the_code() -> None:
    recipe = load_recipe("dermoscopy").with_changes(rounds=3)
    assert parse_recipe(recipe.toml()) == recipe == parse_recipe(recipe.model_dump_json())
    assert recipe.display_name("mel") == "Melanoma (mel)"
    assert load_recipe("mammography").display_name("malignant") == "Malignant finding"
    assert parse_recipe(MINIMAL).display_name("unheard-of") == "unheard-of"
    with pytest.raises(RecipeError, match="display"):
        parse_recipe(MINIMAL + '\n[display]\nelse = "Something else"\n')
