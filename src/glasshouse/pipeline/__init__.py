"""From a recipe to a run folder: stages shared by hash, resume, report, compare."""
