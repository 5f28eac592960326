"""Where tokens come from: a store on the disk, a scratch folder, or the backbones at every access."""
