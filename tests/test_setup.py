"""`make setup` on a machine whose first try was cut off."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYTHON = """#!/bin/sh
# A Python whose `-m venv DIR` puts into DIR what it finds missing there.
[ "$1" = "-m" ] || exit 0
mkdir -p "$3/bin"
for name in python pip; do
    [ -e "$3/bin/$name" ] || { printf '#!/bin/sh\\n' > "$3/bin/$name"; chmod +x "$3/bin/$name"; }
done
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed.")
@pytest.mark.parametrize("left", [(), ("python",)])
def test_an_environment_without_pip_is_completed(tmp_path: Path, left: tuple[str, ...]) -> None:
    """Debian's python3 without python3-venv makes a .venv that has no pip, and fails."""
    for file in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    for name in left:
        made = tmp_path / ".venv" / "bin" / name
        made.parent.mkdir(parents=True)
        shutil.copy(python, made)
    call = ["make", "setup", f"PYTHON={python}"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".venv" / ".installed").is_file()
