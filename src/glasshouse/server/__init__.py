"""HTTP in the dialects of OpenAI and Anthropic, over one engine."""
