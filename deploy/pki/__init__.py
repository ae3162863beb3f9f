"""Keys and certificates in use: what was issued, what runs out, what is revoked."""
