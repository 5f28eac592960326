"""Building blocks of the compared methods: memory banks, FPFH, flows, autoencoders, GANs, voxel grids."""
