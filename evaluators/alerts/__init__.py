"""Alerts: rules over what is recorded, incidents that are told once, and the channels that they are told by."""
