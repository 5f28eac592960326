"""Runs from plan to record: `plan` lists the runs of tables and figures, `execute` makes them, `results` reads them."""
