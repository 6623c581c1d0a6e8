"""Tasks that are generated as events, from settings and a seed."""
