"""Tools: what a model may call, and how models write their calls."""
