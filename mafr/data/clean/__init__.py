"""The part alone: the table plane found and removed, the largest cluster kept."""
