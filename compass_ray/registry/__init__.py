"""Adapter versions that never change, aliases that move between them, and their export to other tools."""
