"""Uploads from creation to the finished file."""
