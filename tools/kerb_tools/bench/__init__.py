"""The benches: every figure that the documentation names comes from one of them."""
