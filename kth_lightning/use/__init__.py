"""What a trained classifier is for: predictions, explanations, export."""
