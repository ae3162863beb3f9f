from pathlib import Path

import pytest

from client.site_recipes import keep_recipe, own_recipe
from common.errors import RecipeError
from common.recipe import load_recipe, shipped_recipes
from tests.client.rounds import TOY, make_site


def test_its_own_copy_then_the_installed_one_then_none(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", patients=0, holdout=0)
    assert own_recipe(site, "toy") == TOY
    assert own_recipe(site, "dermoscopy") == load_recipe("dermoscopy")
    smaller = load_recipe("dermoscopy").with_changes(image_size=64)
    keep_recipe(site, smaller)
    assert own_recipe(site, "dermoscopy") == smaller
    assert own_recipe(site, "unheard-of") is None


def test_a_file_under_a_wrong_name(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", patients=0, holdout=0)
    (site.recipes / "other.toml").write_text(TOY.toml())
    with pytest.raises(RecipeError):
        own_recipe(site, "other")


@pytest.mark.parametrize("name", shipped_recipes())
def test_recipes_survive_being_written(tmp_path: Path, name: str) -> None:
    site = make_site(tmp_path / "site", patients=0, holdout=0)
    keep_recipe(site, load_recipe(name))
    kept = own_recipe(site, name)
    assert kept == load_recipe(name)
    assert kept is not None
    assert kept.digest == load_recipe(name).digest
