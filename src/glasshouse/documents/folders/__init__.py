"""Thousands of documents: found, analyzed once each whatever happens, and shown on one page."""
