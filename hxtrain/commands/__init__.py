"""What one does with devices besides training: one module per command, from settings to files.

Each has its settings (`*Config`), a function that does the work and writes a JSON record into a run directory, and
the rows of the table that its command prints.
"""
