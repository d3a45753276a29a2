"""The distributed engine: each generation is one Elasticsearch index."""
