"""Models that draw: an autoencoder with a density of its codes, of images, vectors and strings."""
