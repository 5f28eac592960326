"""The parts of `mafr validate` by name; apart from the trials, so that the help of the command loads no torch."""

PARTS = {  # name on the command line -> contents
    "features": "single features in a memory bank (Horwitz & Hoshen), as published",
    "ast": "AST on depth alone, at its published size",
    "benchmark": "the six depth and voxel methods of the first benchmark",
    "mafr": "MAFR at growing numbers of epochs, and the released variant",
    "compared": "the compared methods, trained as in the demo and as long as published",
    "differences": "MAFR with one difference between text and code at a time",
}
