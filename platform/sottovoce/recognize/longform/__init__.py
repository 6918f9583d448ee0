"""Speech of any length: where its windows begin and end, and what they say together."""
