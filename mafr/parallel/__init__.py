"""Work over many items: a progress bar, local processes, an existing Dask cluster.

Read `progress` first: `map_parallel` takes any of the three.
"""
