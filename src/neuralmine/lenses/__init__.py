"""Lenses, one a file; the file's name is the lens's name. None of them loads torch when listed or imported."""
