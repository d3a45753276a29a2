"""Files become documents: PDF, Office formats, e-mail, tables, web pages and plain text.

`load` reads one file in this process; `retriever.load.isolated.Loader` reads many in a process that may crash.
"""

from __future__ import annotations

from retriever.load.files import KINDS, content_hash, discover, load, source_of

__all__ = ["KINDS", "LOADER", "content_hash", "discover", "load", "source_of"]

LOADER = "4"
"""Version of all loaders together. Documents that another one read are read again."""
