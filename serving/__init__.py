"""The HTTP service. Imports reader and retriever, never finetune."""
