"""The stages, one file each: a function from artifacts to artifacts with its typed config."""
