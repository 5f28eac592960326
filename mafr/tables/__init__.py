"""Tables from records: `comparison` makes I-V, `supplement` S1-S3, S7 and costs, `seeds` S4, `paired` S5 and S6.

`published` is the paper's own; `digests` says on which processors tables were met.
"""
