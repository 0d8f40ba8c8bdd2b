"""The outer loop: `fit`, what it carries, its checkpoint and its history."""
