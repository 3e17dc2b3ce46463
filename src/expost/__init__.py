"""expost: regularized autoencoders with ex-post density estimation."""

__version__ = "0.1.0"
