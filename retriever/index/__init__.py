"""Engines that find chunks by vector and by keyword, behind one protocol."""
