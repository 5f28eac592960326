"""Tables from records: `comparison` makes Tables I-V, `supplement` S1-S3 and costs, `seeds` S4, `paired` S5 and S6.

`published` is the paper's own; `digests` says on which processors tables were met.
"""
