"""The bundle that `flwr run` ships: a pyproject.toml, no code."""
