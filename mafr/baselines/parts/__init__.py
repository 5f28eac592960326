"""What the compared methods are built from: memory banks, FPFH, flows, autoencoders, GANs, voxel grids."""
