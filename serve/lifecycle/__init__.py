"""How the service starts, watches itself, survives deaths and stops."""
