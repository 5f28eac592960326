"""The page that shows parts in a browser: its files, and the packed arrays that it reads.

The same files make the heatmap explorer of `mafr site` and the report of `mafr predict`.
"""
