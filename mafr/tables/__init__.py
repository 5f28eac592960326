"""Tables from records: `comparison` makes Tables I-V, `supplement` S1-S3 and costs; `published` is the paper's own."""
