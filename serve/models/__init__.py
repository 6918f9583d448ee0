"""The models of a service: the repository, loading, and what each name serves now."""
