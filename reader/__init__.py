"""Question and passages in, proven answer out. Imports the retriever only."""
