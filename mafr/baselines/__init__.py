"""The compared methods, a file a family, on the samples and features that MAFR sees.

Read `registry` first, which names them; `parts` holds what several of them are built from.
"""
