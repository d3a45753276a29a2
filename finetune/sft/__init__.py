"""Supervised fine-tuning of the reader: from rows or documents to a candidate."""
