"""The models of a service: where they are found, how they are loaded, and what a name means now."""
