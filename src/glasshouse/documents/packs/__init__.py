"""Domain packs: what to look for in the documents of a field, each a folder with a `pack.yaml`."""
