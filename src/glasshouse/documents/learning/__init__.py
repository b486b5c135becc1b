"""What is learnt from people's corrections: examples, calibration, tests, and a model that was adapted."""
