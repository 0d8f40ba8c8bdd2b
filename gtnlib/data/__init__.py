"""Real images: splits and sets, and where they are loaded from."""
