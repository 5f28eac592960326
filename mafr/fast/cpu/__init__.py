"""Training and scoring of the head on a CPU in float32: products by torch, what lies between them by `mafr.fast.loops`.

Equal to `mafr.fast.restorer`'s general functions, which serve every place and number type, up to the rounding of
float32. There are no automatic gradients: each block keeps what its backward pass needs, and adds to the gradients of
its weights in place.
"""
