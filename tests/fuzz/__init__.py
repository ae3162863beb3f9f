"""Asking a running site what its OpenAPI document allows, and what it does not."""
