"""The compared methods, one file per family, on the samples and features that MAFR sees.

Read `registry` first, which names them; `parts` holds their building blocks.
"""
