"""The page that shows parts in a browser: its files, and the packed arrays that it reads.

The same files make the explorer of `mafr site`, the widget of notebook 09 and the report of `mafr predict`.
"""
