"""Records to tables: `paper` makes Tables I-V, `supplement` S1-S3 and costs; `published` has the paper's numbers."""
