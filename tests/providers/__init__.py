"""Servers that speak the documented wire formats of external providers, and refuse what those would refuse."""
