"""The plain path against the product path, in seconds, bytes and results.

`plain` and `plain_features` are the whole method as one would write it first; only tests and `mafr bench` run them.
"""
