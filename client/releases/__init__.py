"""Released models at the site: pulled, verified, kept, watched."""
