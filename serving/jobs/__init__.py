"""Long work as durable jobs."""
