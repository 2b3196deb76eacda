"""Measures how well questions are answered: sets in, figures with intervals, a report and the failures out."""
