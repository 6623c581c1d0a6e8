"""Studies of devices besides training: one module per command, from settings to files.

Each module has settings (`*Config`), a function that does the work and writes a JSON record into a run directory, and
the rows of the table that the command prints.
"""
