"""What lies between the matrix products of a training step on a CPU, as compiled loops (Numba) over rows of pixels.

Of few rows torch's operations cost more by their calls than by their arithmetic, of many by what they read and write.
Each function here does at one go what takes torch five to thirty operations. All arrays are float32, C-contiguous and
written in place; a sum runs in parts side by side, as many as AVX2 holds, on every x86 processor that has it.
"""

ATAN_SCALE = 0.636  # brings atan of an affine coupling (`mafr.baselines.parts.flow`) to about ±1, as the authors do
