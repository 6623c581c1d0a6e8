"""Live view: a server of one page that reads run directories (decision 0029). It needs neither torch nor a device."""
