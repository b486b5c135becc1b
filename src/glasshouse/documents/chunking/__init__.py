"""A document in parts that fit a model: sentences, chunks, and what of them may be quoted."""
