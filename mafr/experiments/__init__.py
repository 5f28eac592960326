"""Runs from plan to record.

Read `plan` first: it alone says which runs a table, a figure and the cost table need. `execute` makes them, `results`
reads them.
"""
