"""HTTP routes, a module each."""
