"""The release gate's checks; `server.release_gate` puts them together."""
