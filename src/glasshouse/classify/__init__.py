"""Small text classifiers whose probabilities can be believed: for quality, toxicity, guards, difficulty."""

from glasshouse.classify.classifier import TextClassifier

__all__ = ["TextClassifier"]
