"""Engines that run language models, behind one protocol."""
