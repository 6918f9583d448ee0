"""HTML reports: the shared page, prepared corpora, training runs, and their diagnosis."""
