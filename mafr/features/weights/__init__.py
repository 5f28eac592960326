"""Weight files of the backbones: lookup, download, checksum, report."""
