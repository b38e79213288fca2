"""What the passes found, as text for people and as JSON under a published schema."""
