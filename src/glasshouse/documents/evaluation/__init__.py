"""How right an analyzer is on real documents that people labelled: contracts and annual reports."""
