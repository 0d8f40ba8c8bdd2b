"""Figures, players and explorers of the chapters, in one style."""
