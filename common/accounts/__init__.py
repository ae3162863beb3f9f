"""Signing in, for both sides: passwords, guessing slowed down, and identity providers."""
