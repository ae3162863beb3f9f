"""The commands of `wardround`, one module each; `deploy.cli` puts them together."""
