"""A whole copy of a site's records, and a site made of such a copy."""
