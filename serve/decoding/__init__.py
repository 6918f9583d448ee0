"""Decoding of uploads in processes of their own, short recordings first, within a budget of memory."""
