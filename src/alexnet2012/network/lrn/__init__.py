"""Local response normalisation (paper §3.3): the layer, and three kernels that compute it."""
