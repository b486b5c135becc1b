"""The five things a document can be asked for; each file is one, as a model is to reply."""
