"""The site-owned runner."""
