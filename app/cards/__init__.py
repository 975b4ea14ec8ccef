"""The card collection: cards with their pictures, and who made them and is on them."""
