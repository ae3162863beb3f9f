"""Cases and their images: what a hospital keeps, and whose it is."""
