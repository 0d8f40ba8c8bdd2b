"""What a teacher is worth: students trained on what it teaches, measured on real images."""
