"""What lies between the matrix products of a small training step, as compiled loops (Numba) over rows of pixels.

A small step is a few hundred rows wide: torch's operations then cost more by their calls than by their arithmetic.
Each function here does at one go what takes torch five to thirty operations. All arrays are float32, C-contiguous and
written in place; a sum runs in parts side by side, as many as AVX2 holds, on every x86 processor that has it.
"""
