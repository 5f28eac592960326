"""Scores of many parts by one saved detector: a folder in, a line per part out.

`parts` finds the files of each part, `engine` reads ahead and scores, `outputs` writes lines, pictures and the report;
`command` puts them together, for a folder as it is or as it fills.
"""
