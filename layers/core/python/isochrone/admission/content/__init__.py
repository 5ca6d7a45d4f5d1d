"""What may not be asked: an operator's patterns, and what a moderation backend flags."""
