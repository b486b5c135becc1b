"""What a value says: figures, dates, when two say the same, and where each stands in an answer."""
