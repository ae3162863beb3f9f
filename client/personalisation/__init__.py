"""A site's own classifier head on the release that it holds; it never leaves the site."""
