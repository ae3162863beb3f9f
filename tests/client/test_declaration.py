from pathlib import Path

import pytest

from client.declaration import declare_patients
from client.policy import SitePolicy
from common.errors import PrivacyRefused
from deploy.provision import policy_text


@pytest.mark.parametrize("text", [policy_text("toy"), "", "declared_patients = 5\npaused = true\n"])
def test_only_the_number_changes(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    before = SitePolicy.read(path)
    declare_patients(path, 250)
    after = SitePolicy.read(path)
    assert after == before.model_copy(update={"declared_patients": 250})
    comments = [line for line in text.splitlines() if line.startswith("# The site")]
    assert all(line in path.read_text().splitlines() for line in comments)
    declare_patients(path, 300)
    assert SitePolicy.read(path).declared_patients == 300


def test_a_faulty_file_or_number_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    with pytest.raises(PrivacyRefused):
        declare_patients(path, 100)
    for text, number in (("paused = 7\n", 100), ("paused = true\n", 0)):
        path.write_text(text)
        with pytest.raises(PrivacyRefused):
            declare_patients(path, number)
        assert path.read_text() == text
