"""The report on models under conditions: a curve and a table for each condition."""
