"""The head and its loss as training and scoring run them, with gradients written by hand.

On a laptop, `mafr.model` with automatic gradients is an order of magnitude slower: it computes every pixel, valid or
not, and keeps maps of the size of the image for each layer. The modules here equal it and `mafr.losses`:
- `restorer`: forward pass, training step and residual maps, from tokens (tests/fast/test_restorer.py);
- `objective`: the losses with their gradients in closed form (tests/fast/test_objective.py);
- `layers` and `attention`: pointwise layers and CBAM in parts that stay in the cache (tests/fast/test_restorer.py);
- `pixels`: the pixels that count, as rows; `weights`: a model's weights as one vector for the optimiser;
- `cpu` and `crossmodal`: the head's steps and CFM's small ones on a CPU in float32, without automatic gradients;
  `loops` is what they compile (tests/fast/test_cpu.py, tests/fast/test_crossmodal.py);
- `convolution`: convolutions of small maps, for a compared method (tests/fast/test_convolution.py).
tests/fast/test_gpu_path.py repeats this on a GPU. To understand the method, read `mafr.model` and `mafr.losses`; to
change it, change both.
"""
