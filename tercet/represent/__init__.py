"""Vectors for texts. Collections and topics come with a later issue."""
