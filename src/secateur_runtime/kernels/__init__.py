"""Products with dense and sparse weights in C: how the kernels are built, loaded and called."""
