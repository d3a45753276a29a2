"""Documents in, ranked passages out. Imports no sibling."""
