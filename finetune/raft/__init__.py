"""What the reader learns from: questions, numbered passages, and answers that quote (RAFT, arXiv 2403.10131)."""
