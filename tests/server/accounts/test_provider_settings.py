"""Settings of an OpenID provider that let in too much, or nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigurationError
from server.settings import CoordinatorSettings
from tests.server.accounts.provider_process import Provider


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://localhost"},
        {"redirect_uri": "https://localhost/elsewhere"},
        {"roles": {}},
        {"roles": {"boss": ["x"]}},
        {"roels": {}},
        {"client_auth": "none"},
    ],
)
def test_settings_that_would_let_in_too_much_or_nobody_are_refused(
    tmp_path: Path, wrong: dict[str, object]
) -> None:
    import tomli_w

    table = Provider("https://localhost:1", tmp_path).settings(**wrong)
    (tmp_path / "coordinator.toml").write_text(tomli_w.dumps({"provider": table}))
    with pytest.raises(ConfigurationError):
        CoordinatorSettings.read(tmp_path)


def test_local_accounts_are_not_turned_off_without_a_provider(tmp_path: Path) -> None:
    (tmp_path / "coordinator.toml").write_text("local_accounts = false\n")
    with pytest.raises(ConfigurationError, match="nobody could sign in"):
        CoordinatorSettings.read(tmp_path)
