"""Pictures as numbers that can be climbed."""
