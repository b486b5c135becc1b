"""Who watches calls: spans, metrics, a log, drift alerts, judges, and what they show."""
