"""Export of a checkpoint to the formats of the table, each scored before it may be served."""
