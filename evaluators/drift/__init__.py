"""Profiles of windows, and how far one window is from another."""
