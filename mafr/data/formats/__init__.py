"""Files to arrays: images and masks, xyz tiffs, PLY, PCD, depth images with their camera."""
