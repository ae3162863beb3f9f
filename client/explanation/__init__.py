"""Why the model answered so: heat maps over the image, and cases of the site that look alike."""
